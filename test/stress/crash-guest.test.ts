import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { progress, seed, stress } from './options.ts';
import { Random } from './random.ts';

const rounds = stress.rounds ?? 5;
const killAfterMsMax = 6000;

/** Creates objects until that fails, and records in the guest's memory what was done, each file after its fsync. */
const writer = `
  use IO::Handle; umask 0; my $dir = shift; open my $log, '>', '/tmp/log' or die; $log->autoflush;
  for (my $i = 0;; $i++) {
    my $mode = 0600 | int rand 0100; my $text = "$i\\n" x (1 + rand 3000);
    open my $f, '>', "$dir/f$i" or last; print $f $text; $f->flush and $f->sync or last; close $f or last;
    chmod $mode, "$dir/f$i" or last; chown $i, $i + 1, "$dir/f$i" or last;
    print $log join(' ', $i, length $text, $mode), "\\n";
    mkdir "$dir/d$i", $mode or last; symlink "t$i", "$dir/l$i" or last; rename "$dir/l$i", "$dir/m$i" or last;
  }`;

/** Everything recorded must exist. */
const reader = `
  my $dir = shift; my $count = 0; open my $log, '<', '/tmp/log' or die; my @lines = <$log>;
  for (@lines) {
    my ($i, $size, $mode) = split; my @s = lstat "$dir/f$i" or die "f$i is gone";
    die "f$i: @s" unless $s[7] == $size && ($s[2] & 07777) == $mode && $s[4] == $i && $s[5] == $i + 1;
    open my $f, '<', "$dir/f$i" or die; local $/; die "content of f$i" unless <$f> eq "$i\\n" x ($size / length "$i\\n");
    next if $i == $#lines;
    die "d$i" unless -d "$dir/d$i" && ((stat _)[2] & 07777) == $mode; die "m$i" unless readlink "$dir/m$i" eq "t$i";
    $count++;
  }
  print $count;`;

const perl = (program: string, round: number) => `perl - /mnt/ninepd/r${round} <<'END'\n${program}\nEND`;

const listing = `find . -printf '%P|%y|%m|%U:%G|%n|%l|' -a \\( -type d -printf '\\n' -o -printf '%s\\n' \\) | sort`;

describe('a server that is killed under a real guest', () => {
  let dir: string;
  let guest: Guest;
  let server: Ninepd;
  const share = () => join(dir, 'share');
  const serve = async () => {
    server = await Ninepd.start({ exports: [{ path: share(), name: 'share', securityModel: 'mapped' }] });
    await guest.mount({ trans: 'tcp', port: server.port, aname: 'share', path: '/mnt/ninepd' });
  };

  beforeAll(async () => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-crash-')));
    mkdirSync(share());
    chmodSync(share(), 0o755);
    const fsdev = `local,id=q,path=${share()},security_model=mapped-xattr,multidevs=remap`;
    guest = await Guest.start({
      extraArgs: ['-fsdev', fsdev, '-device', 'virtio-9p-pci,fsdev=q,mount_tag=q'],
    });
  }, 300_000);
  afterAll(async () => {
    await guest?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it(`has all that was fsynced, and QEMU reads what it left (seed ${seed})`, {
    timeout: 60_000 + rounds * 120_000,
  }, async () => {
    const random = new Random(seed);
    for (let round = 0; round < rounds; round++) {
      await serve();
      await guest.sh(`mkdir /mnt/ninepd/r${round}`);
      const writing = guest.sh(perl(writer, round), { timeout: 100_000 });
      await new Promise(resolve => setTimeout(resolve, 1500 + random.below(killAfterMsMax)));
      process.kill(server.pid, 'SIGKILL');
      await writing;
      await guest.umount('/mnt/ninepd');
      await serve();
      const { stdout } = await guest.sh(perl(reader, round));
      progress(`crash: guest round ${round + 1} of ${rounds}, ${stdout} files, directories and links`);
      expect(Number(stdout)).toBeGreaterThan(0);
      await guest.umount('/mnt/ninepd');
      expect(await server.stop()).toBe(0);
    }
    await serve();
    await guest.mount({ trans: 'virtio', tag: 'q', path: '/mnt/qemu' });
    const seen = await Promise.all(['ninepd', 'qemu'].map(mount => guest.sh(`cd /mnt/${mount}; ${listing}`)));
    const withoutUnfinished = seen[1]!.stdout.replace(/^.*\.ninepd-new-[0-9a-f]{24}\|.*\n/gm, '');
    expect(withoutUnfinished).toBe(seen[0]!.stdout);
    for (const mount of ['ninepd', 'qemu']) await guest.umount(`/mnt/${mount}`);
  });
});
