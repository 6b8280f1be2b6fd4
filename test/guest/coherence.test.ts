import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bench, expectOnlyRoots } from './bench.ts';
import { cell, type Model } from './check.ts';

// What one side changes and the other side sees.

describe('changes of the host and of the guest', () => {
  let bench: Bench;
  const model: Model = 'passthrough';
  const host = (name: string) => join(bench.hostDir(model), name);
  const cat = async (path: string) => (await bench.guest.sh(`cat ${path}`)).stdout;

  beforeAll(async () => {
    bench = await Bench.start();
    await bench.mount(cell(model, 'none'), '/mnt/none');
    await bench.mount(cell(model, 'loose'), '/mnt/loose');
  });
  afterAll(async () => {
    await bench?.stop();
  });

  test('without a cache the guest sees what the host writes, makes, replaces and removes at once', async () => {
    writeFileSync(host('a'), 'one');
    expect(await cat('/mnt/none/a')).toBe('one');
    writeFileSync(host('a'), 'second, longer');
    expect(await cat('/mnt/none/a')).toBe('second, longer');
    writeFileSync(host('a.new'), 'by rename');
    renameSync(host('a.new'), host('a'));
    expect(await cat('/mnt/none/a')).toBe('by rename');
    mkdirSync(host('d'));
    writeFileSync(host('d/x'), '');
    expect((await bench.guest.sh('ls /mnt/none/d')).stdout).toBe('x');
    rmSync(host('d/x'));
    expect((await bench.guest.sh('ls /mnt/none/d; [ ! -e /mnt/none/d/x ]')).stdout).toBe('');
    renameSync(host('d'), host('e'));
    await bench.guest.sh('[ ! -e /mnt/none/d ] && [ -d /mnt/none/e ]');
  });

  test('an open file of the guest sees what the host appends, and follows a rename of the host', async () => {
    writeFileSync(host('log'), 'first\n');
    const reading = bench.guest.sh(`
      exec 3</mnt/none/log; cat <&3; touch /mnt/none/ready
      for i in $(seq 100); do [ -e /mnt/none/done ] && break; sleep 0.05; done; cat <&3; stat -Lc %h /proc/self/fd/3`);
    await expect
      .poll(() => statSync(host('ready'), { throwIfNoEntry: false }), { timeout: 5000 })
      .toBeDefined();
    appendFileSync(host('log'), 'second\n');
    renameSync(host('log'), host('log.1'));
    writeFileSync(host('log'), 'another\n');
    writeFileSync(host('done'), '');
    expect((await reading).stdout).toBe('first\nsecond\n1');
  });

  test('what the guest writes is on the host when write returns without a cache, and after fsync with one', async () => {
    await bench.guest.sh('exec 3>/mnt/none/w; printf now >&3; echo > /tmp/x; sleep 0.1');
    expect(readFileSync(host('w'), 'utf8')).toBe('now');
    await bench.guest.sh('printf later > /mnt/loose/w2; sync /mnt/loose/w2');
    expect(readFileSync(host('w2'), 'utf8')).toBe('later');
  });

  test('in loose mode own writes stay in the cache through reopening, another user’s opening and a rename', async () => {
    await bench.guest.sh(`
      cd /mnt/loose; rm -f dirty
      perl -e 'open(my $f, "+>", "dirty") or die; syswrite $f, "A" x 10000; open(my $g, "+<", "dirty") or die;
        sysseek $g, 5000, 0; syswrite $g, "B" x 100; sysseek $f, 4999, 0; sysread $f, my $got, 3; die $got if $got ne "ABB";
        rename "dirty", "renamed" or die; open(my $h, "<", "renamed") or die; local $/; my $all = <$h>;
        die length $all if length $all != 10000; die "content" if $all ne "A" x 5000 . "B" x 100 . "A" x 4900'
      chmod 644 renamed; setpriv --reuid 1000 --clear-groups cksum < renamed > /tmp/seen
      for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=part bs=5000 count=1 seek=$i conv=notrunc status=none; stat part > /dev/null; done
      sync renamed part; cksum renamed part | cut -d' ' -f1,2 > /tmp/loose; cd /mnt/none; cksum renamed part | cut -d' ' -f1,2 > /tmp/none
      cmp /tmp/loose /tmp/none; cksum < renamed | cmp - /tmp/seen`);
  });

  test('in loose mode a fresh lookup sees what the host has changed, even at the same size', async () => {
    writeFileSync(host('v'), 'aaaa');
    expect(await cat('/mnt/loose/v')).toBe('aaaa');
    writeFileSync(host('v'), 'bbbb');
    await bench.guest.sh('sync; echo 2 > /proc/sys/vm/drop_caches');
    expect(await cat('/mnt/loose/v')).toBe('bbbb');
    await bench.guest.sh('printf cccc > /mnt/none/v; sync; echo 2 > /proc/sys/vm/drop_caches');
    expect(await cat('/mnt/loose/v')).toBe('cccc');
  });

  test('in loose mode a random exercise has the same bytes after a remount and on the host', async () => {
    await bench.guest.sh('exercise /mnt/loose/ex 77 2500 mapread mapwrite', { timeout: 120_000 });
    await bench.guest.umount('/mnt/loose');
    await bench.mount(cell(model, 'loose'), '/mnt/loose');
    await bench.guest.sh('cmp /mnt/loose/ex /tmp/oracle-77; cmp /mnt/none/ex /tmp/oracle-77');
    const wanted = (await bench.guest.sh('cksum < /tmp/oracle-77')).stdout;
    await bench.guest.sh(`[ "$(cksum < /mnt/none/ex)" = "${wanted}" ]`);
    const bytes = (await bench.guest.sh('cat /tmp/oracle-77')).bytes;
    expect(readFileSync(host('ex')).equals(bytes)).toBe(true);
  });

  test('at the end the kernel log is clean and the server holds nothing', async () => {
    expect(await bench.guest.complaints()).toEqual([]);
    await bench.guest.umount('/mnt/none');
    await bench.guest.umount('/mnt/loose');
    await expectOnlyRoots(bench);
  });
});
