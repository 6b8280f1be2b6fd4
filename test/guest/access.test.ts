import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { alice, Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { prelude } from './check.ts';

/** This machine's users, and alice (1000) in team (2000). */
function knowingAlice(dir: string): { passwd: string; group: string } {
  const passwd = join(dir, 'passwd');
  const group = join(dir, 'group');
  writeFileSync(passwd, 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/false\n');
  writeFileSync(group, 'root:x:0:\nalice:x:1000:\nteam:x:2000:alice\n');
  return { passwd, group };
}

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
    for (const name of ['theirs', 'mine', 'shifted', 'squashed', 'tight']) {
      mkdirSync(at(name));
      chmodSync(at(name), 0o1777);
    }
    writeFileSync(at('mine', 'here'), 'mine\n');
    writeFileSync(at('shifted', 'of the host'), 'secret\n', { mode: 0o600 });
    for (const [name, mode] of [
      ['of 3000', 0o770],
      ['shared', 0o2777],
    ] as const) {
      mkdirSync(at('tight', name));
      chownSync(at('tight', name), 0, 3000);
      chmodSync(at('tight', name), mode);
    }
    server = await Ninepd.start({
      exports: [],
      userDatabase: knowingAlice(dir),
      args: [
        `--export=${at('theirs')},name=theirs,allow=cid:5,allow=tcp:10.9.0.0/16`,
        `--export=${at('mine')},name=mine,allow=tcp:127.0.0.0/8`,
        `--export=${at('shifted')},name=shifted,security_model=passthrough,map=0:100000:65534`,
        `--export=${at('squashed')},name=squashed,security_model=passthrough,squash=root`,
        `--export=${at('tight')},name=tight,security_model=passthrough,check=host`,
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
      fails 'Permission denied' cat 'of the host'; fails 'Operation not permitted' chown 0 'of the host'
      fails 'Operation not permitted' mknod c c 1 3; fails 'Invalid argument' chown 70000 r
      # Over its own ids it is root.
      chmod 0 d/f; echo more >> d/f; chown 5:6 d/f; chmod 700 d; mkdir d/sub; mv d/f d/sub/g; chmod 4755 d/sub/g
      same "$(what d/sub/g)" '4755 5:6'`);
    expect(owner('shifted', 'r')).toEqual([100_000, 100_000]);
    expect(owner('shifted', 'd', 'sub', 'g')).toEqual([100_005, 100_006]);
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

  test('gives its users no group that the host does not know them in, where the host checks', async () => {
    await mount('tight', '/mnt/t');
    // The guest's root makes alice a member of any group, which the host does not believe.
    await guest.sh(`${prelude} cd /mnt/t; umask 002
      as_member() { setpriv --reuid 1000 --regid $1 --groups 1000,2000,3000 -- "\${@:2}"; }
      as_member 1000 touch own; as_member 2000 mkdir team; same "$(what own team)" '664 1000:1000 775 1000:2000'
      fails 'Operation not permitted' as_member 3000 touch no
      fails 'Operation not permitted' as_member 3000 mkdir no
      fails 'Operation not permitted' as_member 3000 mkfifo no
      fails 'Operation not permitted' as_member 3000 ln -s x no
      fails 'Permission denied' as_member 3000 touch 'of 3000/no'; fails 'Permission denied' as_member 1000 ls 'of 3000'
      fails 'Operation not permitted' as_member 1000 chgrp 3000 own
      as_member 1000 bash -c 'touch shared/f; chmod 2775 shared/f'; same "$(what shared/f)" '775 1000:3000'
      fails 'Operation not permitted' setpriv --reuid 1001 --regid 1001 --clear-groups touch no`);
    expect(server.log()).toMatch(/tight: uid 1000 may not create with gid 3000.*check=guest/);
    await guest.umount('/mnt/t');
  });

  test('has a kernel without complaints', async () => {
    expect(await guest.complaints()).toEqual([]);
  });
});
