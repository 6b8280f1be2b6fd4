import { chmodSync, lstatSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { alice, Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { prelude } from './check.ts';

// Access rules and id mapping: exports denied to a guest, and users with other ids on the host.

describe('a guest', () => {
  let dir: string;
  let guest: Guest;
  let server: Ninepd;

  const at = (...names: string[]) => join(dir, ...names);
  const owner = (...names: string[]) => {
    const { uid, gid } = lstatSync(at(...names));
    return [uid, gid];
  };

  beforeAll(async () => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-export-')));
    chmodSync(dir, 0o755);
    for (const name of ['theirs', 'mine', 'shifted', 'squashed']) {
      mkdirSync(at(name));
      chmodSync(at(name), 0o1777);
    }
    writeFileSync(at('mine', 'here'), 'mine\n');
    writeFileSync(at('shifted', 'of the host'), 'secret\n', { mode: 0o600 });
    server = await Ninepd.start({
      exports: [],
      args: [
        `--export=${at('theirs')},name=theirs,allow=cid:5,allow=tcp:10.9.0.0/16`,
        `--export=${at('mine')},name=mine,allow=tcp:127.0.0.0/8`,
        `--export=${at('shifted')},name=shifted,security_model=passthrough,map=0:100000:65534`,
        `--export=${at('squashed')},name=squashed,security_model=passthrough,squash=root`,
      ],
    });
    guest = await Guest.start({ cpus: 1 });
  });
  afterAll(async () => {
    await guest?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  /** mount(8) retries with `ro` after EACCES. */
  const refused = /cannot mount 10\.0\.2\.2 read-only|ermission denied/;

  const mount = (aname: string | undefined, path: string) =>
    guest.mount({ trans: 'tcp', port: server.port, aname, path, posixacl: true });

  test('is refused where it may not be, as where there is nothing, and gets the first export that it may use', async () => {
    for (const name of ['theirs', 'nothing']) await expect(mount(name, '/mnt/a')).rejects.toThrow(refused);
    expect(server.log()).toMatch(
      /asks for theirs, which it may not use: tcp:127\.0\.0\.1 is not among allow=cid:5/,
    );
    await mount(undefined, '/mnt/a');
    expect((await guest.sh('cat /mnt/a/here')).stdout).toBe('mine');
    await guest.umount('/mnt/a');
  });

  test('has users of its own, whose ids are others on the host', async () => {
    await mount('shifted', '/mnt/s');
    await guest.sh(
      `${prelude} cd /mnt/s; umask 022; mkdir d; echo text > d/f; ln -s f d/l
      same "$(stat -c %u:%g:%a d/f)" 1000:1000:644; same "$(stat -c %u:%g d d/l . | paste -sd' ')" '1000:1000 1000:1000 65534:65534'
      fails 'Operation not permitted' chown 1001 d/f; fails 'Permission denied' cat 'of the host'
      setfacl -m u:1001:r d/f; same "$(getfacl -cn d/f | grep user:1001)" user:1001:r--`,
      { user: alice },
    );
    expect([owner('shifted', 'd'), owner('shifted', 'd', 'f'), owner('shifted', 'd', 'l')]).toEqual(
      Array(3).fill([101_000, 101_000]),
    );
    await guest.sh(`${prelude} cd /mnt/s; echo root > r; same "$(stat -c %u:%g r)" 0:0
      fails 'Permission denied' cat 'of the host'; fails 'Operation not permitted' chown 0 d/f
      fails 'Operation not permitted' mknod c c 1 3; fails 'Invalid argument' chown 70000 r`);
    expect(owner('shifted', 'r')).toEqual([100_000, 100_000]);
    await guest.umount('/mnt/s');
  });

  test('has a root that is nobody there', async () => {
    await mount('squashed', '/mnt/q');
    await guest.sh('cd /mnt/q; echo root > r; mkdir d');
    expect([owner('squashed', 'r'), owner('squashed', 'd')]).toEqual(Array(2).fill([65_534, 65_534]));
    await guest.sh('echo alice > /mnt/q/a', { user: alice });
    expect(owner('squashed', 'a')[0]).toBe(1000);
    await guest.umount('/mnt/q');
  });

  test('has a kernel without complaints', async () => {
    expect(await guest.complaints()).toEqual([]);
  });
});
