import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { alice, Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { prelude } from './check.ts';

// Mounting itself: exports, sizes of messages, whom the client lets in, and a server that goes away.

describe('mounts', () => {
  let dir: string;
  let guest: Guest;
  let server: Ninepd;
  const start = () =>
    Ninepd.start({
      exports: [
        { path: join(dir, 'first'), name: 'first', securityModel: 'mapped' },
        { path: join(dir, 'frozen'), name: 'frozen', securityModel: 'mapped', readonly: true },
        { path: join(dir, 'frozen'), name: 'cold', securityModel: 'passthrough', readonly: true },
      ],
    });
  const mount = (path: string, aname?: string, more = {}) =>
    guest.mount({ trans: 'tcp', port: server.port, aname, path, ...more });

  beforeAll(async () => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-export-')));
    for (const name of ['first', 'frozen', 'frozen/d']) mkdirSync(join(dir, name));
    writeFileSync(join(dir, 'first/here'), 'first\n');
    writeFileSync(join(dir, 'frozen/f'), 'frozen\n', { mode: 0o666 });
    server = await start();
    guest = await Guest.start({ cpus: 1 });
  });
  afterAll(async () => {
    await guest?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test('an export is found by name and by path, the first one also without either', async () => {
    for (const aname of [undefined, 'first', join(dir, 'first')]) {
      await mount('/mnt/a', aname);
      expect((await guest.sh('cat /mnt/a/here')).stdout).toBe('first');
      await guest.umount('/mnt/a');
    }
    await expect(mount('/mnt/a', 'nothing')).rejects.toThrow(/No such file|does not exist|exit status 32/);
    await expect(mount('/mnt/a', join(dir, 'first/../..'))).rejects.toThrow();
  });

  test.each(['frozen', 'cold'])(
    'a read-only export (%s) can be read and refuses every change',
    async aname => {
      await mount('/mnt/ro', aname);
      await guest.sh(`${prelude} cd /mnt/ro; same "$(cat f) $(ls | paste -sd,)" 'frozen d,f'
      for change in 'touch new' 'mkdir new' 'ln -s x new' 'mkfifo new' 'ln f new' 'mv f new' 'rm -f f' 'rmdir d' 'chmod 600 f' \\
        'chown 5 f' 'truncate -s 1 f' 'touch -d @5 f' 'setfattr -n user.x -v 1 f' 'dd if=/dev/null of=f status=none'; do
        fails 'Read-only file system' $change; done
      same "$(cat f)" frozen`);
      await guest.umount('/mnt/ro');
    },
  );

  test.each([4096, 8192, 61_464, 1_048_576])(
    'messages of up to %d bytes carry files and listings',
    async msize => {
      await mount('/mnt/a', 'first', { msize });
      await guest.sh(`${prelude} cd /mnt/a; mkdir m; cd m; head -c 700001 /dev/urandom > /tmp/src; cp /tmp/src big; cmp big /tmp/src
      touch $(seq 300); same "$(ls | wc -l)" 301; long=$(printf 'n%.0s' $(seq 255)); touch $long; test -e $long
      ln -s $(printf 'x%.0s' $(seq 4000)) l; same "$(readlink l | wc -c)" 4001
      setfattr -n user.big -v $(printf 'v%.0s' $(seq 3000)) big; same "$(getfattr --only-values -n user.big big | wc -c)" 3000
      cd ..; rm -r m`);
      await guest.umount('/mnt/a');
    },
  );

  test('access=any lets every user act as one, access=UID only that one', async () => {
    await mount('/mnt/a', 'first', { access: 'any' });
    await guest.sh('umask 0; mkdir -m 777 /mnt/a/any');
    await guest.sh('echo x > /mnt/a/any/f; cat /mnt/a/any/f', { user: alice });
    await guest.umount('/mnt/a');
    // mount(8) of util-linux looks at what it has mounted and gives up: root is the one who may not. busybox does not.
    const options = `version=9p2000.L,trans=tcp,port=${server.port},aname=first,access=1000`;
    await guest.sh(`busybox mount -t 9p -o ${options} 10.0.2.2 /mnt/a`);
    await guest.sh('cat /mnt/a/here; echo y > /mnt/a/any/g', { user: alice });
    await guest.sh('! cat /mnt/a/here; umount -l /mnt/a');
  });

  test('sixteen directories deep and deeper, every user finds his way from the root', async () => {
    await mount('/mnt/a', 'first');
    const path = Array.from({ length: 40 }, (_, i) => `level${i}`).join('/');
    await guest.sh(`mkdir -p /mnt/a/${path}; echo deep > /mnt/a/${path}/f; cd /mnt/a/${path}; cat f`);
    expect((await guest.sh(`cat /mnt/a/${path}/f`, { user: alice })).stdout).toBe('deep');
    await guest.umount('/mnt/a');
  });

  test('a server that is told to stop ends well, and the guest gets errors and can unmount', async () => {
    await mount('/mnt/a', 'first');
    await guest.sh('exec 3</mnt/a/here; cat <&3');
    expect(await server.stop()).toBe(0);
    await guest.sh('! ls /mnt/a; ! cat /mnt/a/here', { timeout: 10_000 });
    await guest.umount('/mnt/a');
    server = await start();
    await mount('/mnt/a', 'first');
    expect((await guest.sh('cat /mnt/a/here')).stdout).toBe('first');
  });

  test('tasks of the guest that wait when the server is killed get an error, and a new mount works', async () => {
    const waiting = guest.sh(
      'lock posix /mnt/a/here write 0 0 & sleep 1; ! cat /mnt/a/here; kill -9 $!; wait $! || true',
      {
        timeout: 20_000,
      },
    );
    await new Promise(resolve => setTimeout(resolve, 500));
    process.kill(server.pid, 'SIGKILL');
    await waiting;
    await guest.umount('/mnt/a');
    server = await start();
    await mount('/mnt/a', 'first');
    expect((await guest.sh('cat /mnt/a/here')).stdout).toBe('first');
    await guest.umount('/mnt/a');
  });

  test('the guest kernel has nothing to complain about', async () => {
    expect(await guest.complaints()).toEqual([]);
  });
});
