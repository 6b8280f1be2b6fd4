import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { command } from '../support/compiled.ts';
import { Guest } from '../support/guest.ts';
import { prelude } from './check.ts';
import { makeProgramDisk } from './program-disk.ts';

const MiB = 1024 * 1024;
const port = 565;
const log = '/tmp/ninepd.log';
const serve = '/opt/ninepd/node /opt/ninepd/node_modules/ninepd/dist/cli/main.js serve';

// vfat has no xattrs, owners and modes, and finds an object under several names. The server is in the guest, whose kernel has
// the file system that this machine's may lack.
describe('mapped-file on vfat', () => {
  let dir: string;
  let guest: Guest;
  const sh = (script: string) => guest.sh(`${prelude}\ncd /mnt/fat\n${script}`);

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-vfat-'));
    const [program, fat] = [join(dir, 'program.ext4'), join(dir, 'fat')];
    makeProgramDisk(program);
    const fd = openSync(fat, 'w');
    ftruncateSync(fd, 64 * MiB);
    closeSync(fd);
    // Of Debian's package dosfstools.
    command('mkfs.vfat', fat);
    const drive = (path: string, more = '') => ['-drive', `file=${path},if=virtio,format=raw${more}`];
    const extraArgs = [...drive(program, ',readonly=on'), ...drive(fat)];
    guest = await Guest.start({ memory: 1536, cpus: 1, extraArgs });
    await guest.sh(`
      guest-module vsock_loopback vfat nls_cp437 nls_ascii; mkdir -p /opt/ninepd /tmp/fat
      mount -o ro /dev/vdb /opt/ninepd; mount -t vfat -o codepage=437,iocharset=ascii /dev/vdc /tmp/fat`);
  });
  afterAll(async () => {
    await guest.stop();
    rmSync(dir, { recursive: true });
  });

  async function start(): Promise<void> {
    // Everything is emulated, and five to ten times slower than on this machine: the sandbox would start the program twice.
    const script = `
      ${serve} --sandbox off --export /tmp/fat,name=fat,security_model=mapped-file --listen vsock://1:${port} </dev/null >${log} 2>&1 &
      echo $! >/tmp/ninepd.pid
      for i in $(seq 1700); do grep -q '^listening on' ${log} && exit 0; kill -0 $! || break; sleep 0.1; done
      cat ${log} >&2; exit 1`;
    await guest.sh(script, { timeout: 180_000 });
    await guest.mount({ trans: 'vsock', cid: 1, port, aname: 'fat', path: '/mnt/fat' });
  }

  test('mapped says what to use instead', async () => {
    const { stdout } = await guest.sh(`${serve} --export /tmp/fat 2>&1 || true`, { timeout: 180_000 });
    expect(stdout).toMatch(/no user extended attributes.*mapped-file/);
  });

  test('keeps owners, modes, types and targets, over a killed server', async () => {
    await start();
    const listing = `find d -printf '%P|%y|%m|%U:%G|%l|' -a \\( -type d -printf '\\n' -o -printf '%s\\n' \\) | LC_ALL=C sort`;
    const { stdout } = await sh(`
      umask 022; mkdir d d/sub; echo text >d/f; chown 1000:1001 d/f; chmod 6755 d/f; ln -s /no/where d/link; mkfifo d/p
      mknod d/null c 1 3; chown -h 5:6 d/link; chmod 1777 d/sub; echo new >d/g; chmod 640 d/g; mv d/g d/f
      echo one >d/one; chown 7:8 d/one; mv d/one d/sub/two; fails 'not permitted' ln d/f d/hard; ${listing}`);
    expect(stdout.trim().split('\n')).toEqual([
      'f|f|640|0:0||4',
      'link|l|777|5:6|/no/where|9',
      'null|c|644|0:0||0',
      'p|p|644|0:0||0',
      'sub/two|f|644|7:8||4',
      'sub|d|1777|0:0||',
      '|d|755|0:0||',
    ]);
    await guest.sh('kill -KILL $(cat /tmp/ninepd.pid); umount /mnt/fat');
    await start();
    expect((await sh(listing)).stdout).toBe(stdout);
    await sh('rm -r d; same "$(ls -A)" ""');
  });

  test('shows and gives away no metadata, under no other name that vfat finds it by', async () => {
    await sh(`
      echo x >f; chmod 755 .; mkdir d
      # On the file system itself these are all the same.
      for name in .VIRTFS_METADATA .virtfs_metadata. VIRTFS~1; do
        ls "/tmp/fat/$name/f" >/dev/null
        fails '' ls "$name"; fails '' cat "$name/f"; fails '' mv "$name" mine; fails '' mv d "$name"; fails '' rmdir "$name"
        fails '' mkdir "$name"; fails '' touch "$name"; fails '' ln -s x "$name"
      done
      for name in .VIRTFS_METADATA_ROOT .virtfs_metadata_root. VIRTFS~2; do
        ls "/tmp/fat/$name" >/dev/null
        fails '' cat "$name"; fails '' rm "$name"; fails '' mv "$name" mine; fails '' mv f "$name"
      done
      same "$(ls -A)" "$(printf 'd\\nf')"`);
  });

  test('shows no object under its short name, whose record would be that of another', async () => {
    await sh(`
      echo public >"a public file"; echo secret >"a secret file"; chmod 600 "a secret file"
      ls /tmp/fat/APUBLI~1 /tmp/fat/ASECRE~1 >/dev/null
      for name in APUBLI~1 ASECRE~1; do fails 'No such file' cat "$name"; fails '' rm "$name"; fails '' chmod 777 "$name"; done
      same "$(stat -c %a 'a secret file')" 600`);
    await guest.umount('/mnt/fat');
  });
});
