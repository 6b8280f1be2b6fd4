import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Attr } from '#base/attr.ts';
import * as errno from '#base/errno.ts';
import { asOwned } from '#base/owned.ts';
import { addon } from '#host/addon.ts';
import { O_EXCL, O_RDONLY, O_WRONLY } from '#host/constants.ts';
import { inline, pool } from '#host/linux.ts';
import { descriptorLimit, effectiveCapabilities, groupsOf, peerCredentials } from '#host/process.ts';
import { type Credentials, noSession, serverCreds as server } from '#host/syscalls.ts';
import { fdOf } from '#transport/handle.ts';
import { freshDirectory, n, refusal } from './host-fixture.ts';

const user = (uid: number, gid = uid, groups: readonly number[] = []): Credentials => ({ uid, gid, groups });

/** Uid, Gid (with the fs ids), Groups and effective capabilities of this thread. */
const thread = () =>
  readFileSync('/proc/thread-self/status', 'latin1')
    .split('\n')
    .filter(line => /^(Uid|Gid|Groups|Cap...):/.test(line));

describe.each([
  ['inline', inline],
  ['on the pool', pool],
])('calls as a caller, %s', (_, sys) => {
  const { path, fd: dir } = freshDirectory();
  const shm = freshDirectory('/dev/shm');
  chmodSync(path, 0o1777);
  const at = (name: string) => join(path, name);

  test('what a caller makes is the caller’s', async () => {
    await sys.close(await sys.create(user(1000, 2000), dir, n('made'), O_WRONLY, 0o600));
    await sys.mkdir(user(4_000_000_000, 3_000_000_000), dir, n('folder'), 0o700);
    expect([lstatSync(at('made')).uid, lstatSync(at('made')).gid]).toEqual([1000, 2000]);
    expect([lstatSync(at('folder')).uid, lstatSync(at('folder')).gid]).toEqual([
      4_000_000_000, 3_000_000_000,
    ]);
  });

  test('the host judges by user, group and supplementary groups', async () => {
    writeFileSync(at('grouped'), 'x', { mode: 0o640 });
    chownSync(at('grouped'), 0, 777);
    const held = await sys.lookup(server, dir, n('grouped'));
    const opens = async (creds: Credentials) => {
      const answer = await refusal(async () => sys.close(await sys.reopen(creds, held, O_RDONLY)));
      return answer === 'not refused' ? true : answer;
    };
    expect(await opens(user(1000))).toBe(errno.EACCES);
    expect(await opens(user(1000, 777))).toBe(true);
    expect(await opens(user(1000, 1000, [5, 777]))).toBe(true);
    expect(await opens(user(1000, 1000, [5, 778]))).toBe(errno.EACCES);
    expect(await opens(user(1000, 1000))).toBe(errno.EACCES);
    expect(await opens(user(1000, 1000, [...Array(63).keys()].map(i => i + 1).concat(777)))).toBe(true);
    expect(await opens(user(0))).toBe(true);
    await sys.close(held);
  });

  test('a caller cannot pass through a directory it may not search', async () => {
    mkdirSync(at('closed'), { mode: 0o700 });
    writeFileSync(join(at('closed'), 'in'), '');
    const held = await sys.lookup(server, dir, n('closed'));
    expect(await sys.lookup(user(1000), held, n('in'))).toBe(-errno.EACCES.code);
    expect(await sys.statAt(user(1000), held, n('in'), new Attr())).toBe(-errno.EACCES.code);
    const fd = await sys.lookup(user(0), held, n('in'));
    await sys.close(fd);
    await sys.close(held);
  });

  test('a caller other than root has none of the capabilities that setfsuid leaves', async () => {
    writeFileSync(at('privileged'), '');
    chownSync(at('privileged'), 1000, 1000);
    const fd = await sys.lookup(server, dir, n('privileged'));
    const one = Buffer.from('1');
    // CAP_SYS_ADMIN
    expect(await refusal(() => sys.setxattr(user(1000), fd, 'trusted.a', asOwned(one), 0))).toBe(errno.EPERM);
    await sys.setxattr(user(0), fd, 'trusted.a', asOwned(one), 0);
    expect(await sys.getxattr(user(1000), fd, 'trusted.a', asOwned(Buffer.alloc(1)))).toBe(
      -errno.ENODATA.code,
    );
    expect(await sys.getxattr(user(0), fd, 'trusted.a', asOwned(Buffer.alloc(1)))).toBe(1);
    // CAP_SETFCAP: an empty set of capabilities, version 2
    const caps = Buffer.alloc(20);
    caps.writeUInt32LE(0x0200_0000, 0);
    expect(await refusal(() => sys.setxattr(user(1000), fd, 'security.capability', asOwned(caps), 0))).toBe(
      errno.EPERM,
    );
    await sys.setxattr(user(0), fd, 'security.capability', asOwned(caps), 0);
    await sys.close(fd);
  });

  test('a caller with capabilities of file access has these four and no others', async () => {
    const capable: Credentials = { ...user(1000), fileCaps: 'all' };
    writeFileSync(at('of root'), 'x');
    chmodSync(at('of root'), 0o6711);
    mkdirSync(at('closed to all'), { mode: 0 });
    const fd = await sys.lookup(server, dir, n('of root'));
    const closed = await sys.lookup(capable, dir, n('closed to all'));
    expect(await refusal(() => sys.reopen(user(1000), fd, O_RDONLY))).toBe(errno.EACCES);
    // CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN; a write clears set-id bits without CAP_FSETID.
    const open = await sys.reopen(capable, fd, O_WRONLY);
    await sys.write(capable, open, [asOwned(Buffer.from('y'))], 0);
    await sys.close(open);
    expect(lstatSync(at('of root')).mode & 0o7777).toBe(0o711);
    await sys.close(await sys.create(capable, closed, n('made'), O_WRONLY | O_EXCL, 0o600));
    expect(lstatSync(join(at('closed to all'), 'made')).uid).toBe(1000);
    await sys.chmod(capable, fd, 0o2755);
    expect(lstatSync(at('of root')).mode & 0o7777).toBe(0o755);
    await sys.chown(capable, fd, 7, 8);
    expect([lstatSync(at('of root')).uid, lstatSync(at('of root')).gid]).toEqual([7, 8]);
    // CAP_SYS_ADMIN, CAP_MKNOD, CAP_SETFCAP
    const one = asOwned(Buffer.from('1'));
    expect(await refusal(() => sys.setxattr(capable, fd, 'trusted.a', one, 0))).toBe(errno.EPERM);
    expect(await refusal(() => sys.setxattr(capable, fd, 'security.a', one, 0))).toBe(errno.EPERM);
    expect(await refusal(() => sys.mknod(capable, dir, n('null'), 0o020666, 0x103))).toBe(errno.EPERM);
    for (const held of [fd, closed]) await sys.close(held);
  });

  test('a caller with capabilities over ranges has them where owner and group lie in both', async () => {
    const range = (first: number, count: number) => ({ first, count });
    const ranges = {
      uids: [range(0xffff_fff0, 4), range(50_000, 10)],
      gids: [range(60_000, 10), range(0xffff_fff0, 14)],
    };
    const capable: Credentials = { ...user(1000), fileCaps: ranges };
    const opens = async (uid: number, gid: number) => {
      const name = `owned-${uid}-${gid}`;
      writeFileSync(at(name), '', { mode: 0o600 });
      chownSync(at(name), uid, gid);
      const fd = await sys.lookup(server, dir, n(name));
      const outcome = await refusal(async () => sys.close(await sys.reopen(capable, fd, O_RDONLY)));
      await sys.close(fd);
      return outcome === 'not refused' ? true : outcome;
    };
    for (const uid of [50_000, 50_009, 0xffff_fff0, 0xffff_fff3]) {
      for (const gid of [60_000, 60_009, 0xffff_fff0, 0xffff_fffd]) expect(await opens(uid, gid)).toBe(true);
      for (const gid of [0, 59_999, 60_010, 0xffff_ffef, 0xffff_fffe])
        expect([uid, gid, await opens(uid, gid)]).toEqual([uid, gid, errno.EACCES]);
    }
    for (const uid of [0, 49_999, 50_010, 0xffff_ffef, 0xffff_fff4, 60_000])
      expect([uid, await opens(uid, 60_000)]).toEqual([uid, errno.EACCES]);
    const many = Array.from({ length: 33 }, (_x, i) => range(i * 10, 1));
    const tooMany: Credentials = { ...user(1000), fileCaps: { uids: many, gids: [] } };
    expect(await refusal(() => sys.mkdir(tooMany, dir, n('many'), 0o700))).toBe(errno.E2BIG);
  });

  test('a caller gets no set-gid file of a group that it is not in (CVE-2022-0358)', async () => {
    mkdirSync(at('shared'));
    chownSync(at('shared'), 0, 777);
    chmodSync(at('shared'), 0o2777);
    const shared = await sys.lookup(server, dir, n('shared'));
    const made = async (name: string, creds: Credentials) => {
      await sys.close(await sys.create(creds, shared, n(name), O_WRONLY | O_EXCL, 0o2755));
      const { gid, mode } = lstatSync(join(at('shared'), name));
      return [gid, mode & 0o7777];
    };
    expect(await made('stranger', user(1000))).toEqual([777, 0o755]);
    expect(await made('member', user(1000, 1000, [777]))).toEqual([777, 0o2755]);
    await sys.close(shared);
  });

  test('a caller other than root may not give files away, and loses set-id bits by writing', async () => {
    await sys.close(await sys.create(user(1000), dir, n('mine'), O_WRONLY, 0o600));
    const fd = await sys.lookup(server, dir, n('mine'));
    expect(await refusal(() => sys.chown(user(1000), fd, 1001, -1))).toBe(errno.EPERM);
    expect(await refusal(() => sys.chmod(user(1001), fd, 0o777))).toBe(errno.EPERM);
    await sys.chmod(server, fd, 0o6777);
    const open = await sys.reopen(user(1001), fd, O_WRONLY);
    await sys.write(user(1001), open, [asOwned(Buffer.from('x'))], 0);
    expect(statSync(at('mine')).mode & 0o7777).toBe(0o777);
    await sys.close(open);
    await sys.close(fd);
  });

  test('handles are opened as the server, whoever called before', async () => {
    writeFileSync(join(shm.path, 'handled'), '');
    const fd = await sys.lookup(user(0), shm.fd, n('handled'));
    const handle = await sys.handle(fd);
    await Promise.all(Array.from({ length: 32 }, () => sys.stat(user(1000), fd, new Attr())));
    const again = await sys.openHandle(shm.fd, handle!);
    expect(again).toBeGreaterThan(2);
    await sys.close(again);
    await sys.close(fd);
  });

  test('an id of 4294967295 is nobody’s and never the server’s', async () => {
    const before = thread();
    for (const creds of [
      user(4_294_967_295),
      user(1000, 4_294_967_295),
      user(4_294_967_295, -1),
      user(1000, -1),
    ]) {
      expect(await refusal(() => sys.mkdir(creds, dir, n('nobody'), 0o700))).toBe(errno.EPERM);
    }
    expect(await refusal(() => sys.mkdir(user(1000, 1000, [4_294_967_295]), dir, n('nobody'), 0o700))).toBe(
      errno.EPERM,
    );
    expect(await sys.lookup(server, dir, n('nobody'))).toBe(-errno.ENOENT.code);
    expect(thread()).toEqual(before);
  });

  test('each of two callers gets what it makes, whichever came before it on a thread', async () => {
    chownSync(at('.'), 0, 7);
    chmodSync(at('.'), 0o1777);
    const callers = [
      user(1000, 100),
      user(1001, 100),
      user(1002, 100, [4, 5]),
      user(1003, 100, [4, 5]),
      user(1003, 101, [4, 5]),
      user(1004, 101, [6]),
      user(0, 0, [0]),
      user(0, 100, [4, 5]),
      { ...user(1000, 100), fileCaps: 'all' } as const,
      { ...user(1005, 100, [4, 5]), fileCaps: 'all' } as const,
      { ...user(1005, 100), fileCaps: { uids: [{ first: 1000, count: 2 }], gids: [{ first: 0, count: 9 }] } },
      server,
    ];
    // One thread: it keeps the credentials of a call until the next call.
    addon.setPoolBounds(1, 8);
    for (const [i, first] of callers.entries()) {
      for (const [j, second] of callers.entries()) {
        for (const [which, creds] of [first, second].entries()) {
          const name = `turn-${i}-${j}-${which}`;
          const label = `${name} of ${JSON.stringify(creds)}`;
          expect(await refusal(() => sys.mkdir(creds, dir, n(name), 0o700)), label).toBe('not refused');
          const { uid, gid } = lstatSync(at(name));
          expect([uid, gid], label).toEqual(creds === server ? [0, 0] : [creds.uid, creds.gid]);
        }
        // Only root and a caller that is to have them has capabilities, whatever ran before. The directory is root's.
        const mayTake =
          second === server || second.uid === 0 || second.uid === first.uid || second.fileCaps === 'all';
        const taken = await refusal(() => sys.rename(second, dir, n(`turn-${i}-${j}-0`), dir, n('taken'), 0));
        expect(taken, `${i} ${j}`).toBe(mayTake ? 'not refused' : errno.EPERM);
        if (mayTake) await sys.unlink(server, dir, n('taken'), true);
      }
    }
    addon.setPoolBounds(64, 8);
  });

  test.each([65, 1000, 65_536])('a caller is in all of its %i groups', async count => {
    const gids = Array.from({ length: count }, (_x, i) => 100_000 + 2 * i);
    const files = await Promise.all(
      [0, count >> 1, count - 1].map(async i => {
        const name = `of-${count}-${i}`;
        writeFileSync(at(name), '', { mode: 0o640 });
        chownSync(at(name), 0, gids[i]!);
        return sys.lookup(server, dir, n(name));
      }),
    );
    const opens = (creds: Credentials, fd: number) =>
      refusal(async () => sys.close(await sys.reopen(creds, fd, O_RDONLY)));
    const [one, other] = [user(1000, 1000, gids), user(1001, 1000, gids.slice(1))];
    const before = thread();
    for (const fd of files) {
      expect(await opens(one, fd)).toBe('not refused');
      expect(await opens(user(1000, 1000, [7]), fd)).toBe(errno.EACCES);
      expect(await opens(other, fd)).toBe(fd === files[0] ? errno.EACCES : 'not refused');
      expect(await opens({ ...one, gid: 5 }, fd)).toBe('not refused');
    }
    expect(thread()).toEqual(before);
    for (const fd of files) await sys.close(fd);
  });

  test('a caller in more groups than Linux knows is refused', async () => {
    const gids = Array.from({ length: 65_537 }, (_x, i) => i);
    expect(await refusal(() => sys.mkdir(user(1000, 1000, gids), dir, n('many'), 0o700))).toBe(errno.E2BIG);
    expect(await refusal(() => sys.mkdir(user(1000, 1000), dir, n('few'), 0o700))).toBe('not refused');
    expect(lstatSync(at('few')).uid).toBe(1000);
  });

  test('a storm of creates under 50 users mixed with the server’s gives each file its owner', async () => {
    const callers = Array.from({ length: 50 }, (_x, i) =>
      user(10_000 + i, 20_000 + i, i % 3 === 0 ? [30_000 + i] : []),
    );
    const made: Promise<void>[] = [];
    for (let i = 0; i < 1000; i++) {
      const name = n(`storm-${i}`);
      const creds = i % 4 === 0 ? server : callers[i % 50]!;
      made.push((async () => sys.close(await sys.create(creds, dir, name, O_WRONLY | O_EXCL, 0o600)))());
      if (i % 10 === 0) writeFileSync(at(`node-${i}`), '');
    }
    await Promise.all(made);
    for (let i = 0; i < 1000; i++) {
      const { uid, gid } = lstatSync(at(`storm-${i}`));
      const { uid: want, gid: wantGid } = i % 4 === 0 ? { uid: 0, gid: 0 } : callers[i % 50]!;
      expect([uid, gid]).toEqual([want, wantGid]);
      if (i % 10 === 0) expect(lstatSync(at(`node-${i}`)).uid).toBe(0);
    }
  });
});

describe('this thread', () => {
  const { path, fd: dir } = freshDirectory();
  chmodSync(path, 0o777);

  test('is the server’s again when an inline call returns, failed or not', () => {
    const before = thread();
    inline.close(inline.create(user(1000, 1000, [1, 2, 3]), dir, n('a'), O_WRONLY, 0o600) as number);
    expect(thread()).toEqual(before);
    expect(inline.lookup(user(1000, 5), dir, n('missing'))).toBe(-errno.ENOENT.code);
    expect(thread()).toEqual(before);
    expect(inline.lookup(user(4_294_967_295), dir, n('missing'))).toBe(-errno.EPERM.code);
    expect(thread()).toEqual(before);
    writeFileSync(join(path, 'after'), '');
    expect(lstatSync(join(path, 'after')).uid).toBe(0);
  });

  test('is never switched by what runs on the pool', async () => {
    const before = thread();
    const fd = inline.lookup(server, dir, n('a')) as number;
    const calls = Array.from({ length: 200 }, (_x, i) => pool.stat(user(5000 + i), fd, new Attr()));
    for (let i = 0; i < 50; i++) expect(thread()).toEqual(before);
    await Promise.all(calls);
    inline.close(fd);
  });
});

describe('what the process asks about itself', () => {
  const { path, fd: dir } = freshDirectory();

  test('the effective capabilities are those that the kernel shows', () => {
    const shown = BigInt(
      `0x${readFileSync('/proc/thread-self/status', 'latin1').match(/CapEff:\s*(\w+)/)![1]}`,
    );
    const have = effectiveCapabilities();
    const bits = {
      CAP_CHOWN: 0n,
      CAP_DAC_OVERRIDE: 1n,
      CAP_DAC_READ_SEARCH: 2n,
      CAP_FOWNER: 3n,
      CAP_FSETID: 4n,
    };
    const more = {
      CAP_SETGID: 6n,
      CAP_SETUID: 7n,
      CAP_SYS_ADMIN: 21n,
      CAP_SYS_RESOURCE: 24n,
      CAP_MKNOD: 27n,
    };
    for (const [name, bit] of Object.entries({ ...bits, ...more, CAP_SETFCAP: 31n })) {
      expect([name, have.has(name)]).toEqual([name, ((shown >> bit) & 1n) === 1n]);
    }
  });

  test('the user database gives the groups of a user, and undefined for one it does not know', async () => {
    const groups = readFileSync('/etc/group', 'latin1')
      .split('\n')
      .map(line => line.split(':'));
    const daemon = await groupsOf(1, noSession);
    expect(daemon).toEqual({
      gid: 1,
      groups: [1, ...groups.filter(g => g[3]?.split(',').includes('daemon')).map(g => Number(g[2]))],
    });
    expect(await groupsOf(3_999_999_999, noSession)).toBeUndefined();
  });

  test('the limit of descriptors is that of the process', () => {
    const limit = readFileSync('/proc/self/limits', 'latin1').match(/Max open files\s+(\d+)/)![1];
    expect(descriptorLimit()).toBe(Number(limit));
  });

  test('the peer of a Unix socket is known, and that of another descriptor is not', async () => {
    const listener = createServer().listen(join(path, 'socket'));
    const accepted = new Promise<number>(resolve => listener.once('connection', peer => resolve(fdOf(peer))));
    const client = connect(join(path, 'socket'));
    expect(peerCredentials(await accepted)).toEqual({ pid: process.pid, uid: 0, gid: 0 });
    client.destroy();
    listener.close();
    expect(await refusal(() => peerCredentials(dir))).toBe(errno.Errno.of(88));
  });
});
