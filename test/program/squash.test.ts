import { chmodSync, chownSync, lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getAttributeSync, setAttributeSync } from 'fs-xattr';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, type ExportOptions, Server } from '#index.ts';
import { mapAcl } from '#security/acl-ids.ts';
import { IdMap, mapProblems } from '#security/id-map.ts';
import { idProblems } from '#security/squash.ts';
import { errnoOf, NONUNAME, O, SET, TestClient } from '../conformance/test-client.ts';

const none = 0xffff_ffff;

/** An ACL of tags, permissions and ids in the kernel's xattr format. */
function acl(...entries: [tag: number, perm: number, id: number][]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2);
  for (const [i, [tag, perm, id]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * i);
    bytes.writeUInt16LE(perm, 6 + 8 * i);
    bytes.writeUInt32LE(id, 8 + 8 * i);
  }
  return bytes;
}

/** An ACL that grants a user and a group more. */
const aclFor = (user: number, group: number) =>
  acl([1, 6, none], [2, 6, user], [4, 4, none], [8, 4, group], [16, 6, none], [32, 0, none]);

describe('a map of ids', () => {
  it('has one counterpart for each id of its ranges, in both directions', () => {
    const map = IdMap.of(['0:100000:10', 'u:1000:500:2'], 'u');
    expect([0, 9, 10, 999, 1000, 1001, 1002].map(id => map.toHost(id))).toEqual([
      100_000,
      100_009,
      undefined,
      undefined,
      500,
      501,
      undefined,
    ]);
    expect([100_000, 100_009, 100_010, 501, 0].map(id => map.toGuest(id))).toEqual([
      0,
      9,
      undefined,
      1001,
      undefined,
    ]);
    expect(IdMap.of(['u:1000:500:2'], 'g').toHost(1000)).toBeUndefined();
    expect(IdMap.of([], 'u').toHost(4_294_967_294)).toBe(4_294_967_294);
    expect(IdMap.of(['0:1:4294967294'], 'g').toHost(4_294_967_293)).toBe(4_294_967_294);
  });

  it('is refused when a range is none, or two have an id in common', () => {
    const fault = (...texts: string[]) => mapProblems(texts).join('\n');
    expect(fault('0:100000')).toContain('map=GUEST:HOST:COUNT');
    expect(fault('x:0:0:1')).toContain('map=GUEST:HOST:COUNT');
    expect(fault('0:0:0')).toContain('how many');
    expect(fault('0:1:4294967295')).toContain('4294967294');
    expect(fault('0:0:10', '9:100:1')).toContain('id 9 of the guest');
    expect(fault('0:0:10', 'u:50:9:1')).toContain('id 9 of the host');
    expect(fault('u:0:0:10', 'g:0:0:10', '10:10:10')).toBe('');
    expect(mapProblems(['x', '0:0:2', '1:1:1'])).toHaveLength(3);
  });

  it('maps the ids of users and groups in an ACL, and nothing else of it', () => {
    const given = acl([1, 6, none], [2, 4, 1000], [4, 4, none], [8, 5, 100], [16, 7, none], [32, 0, none]);
    const wanted = acl([1, 6, none], [2, 4, 1001], [4, 4, none], [8, 5, 102], [16, 7, none], [32, 0, none]);
    expect(
      mapAcl(
        given,
        id => id + 1,
        id => id + 2,
      ),
    ).toEqual(wanted);
    const same = (id: number) => id;
    const broken = [Buffer.alloc(0), given.subarray(0, 3), given.subarray(0, 9), Buffer.from([1, 0, 0, 0])];
    for (const bytes of broken) expect(() => mapAcl(bytes, same, same)).toThrow();
  });
});

describe('passthrough', () => {
  let dir: string;
  let files: string;
  let server: Server | undefined;
  const clients: TestClient[] = [];

  beforeEach(() => {
    process.umask(0);
    dir = mkdtempSync(join(tmpdir(), 'ninepd-ids-'));
    chmodSync(dir, 0o755);
    files = join(dir, 'files');
    mkdirSync(files);
    chmodSync(files, 0o1777);
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map(one => one.close()));
    await server?.close();
    server = undefined;
    rmSync(dir, { recursive: true });
  });

  const path = () => join(dir, 's');

  async function serve(options: Omit<ExportOptions, 'path'>): Promise<void> {
    server = await Server.open({
      exports: [{ ...options, path: files, name: 'x', securityModel: 'passthrough' }],
      groupsOf: uid => (uid === 1000 ? { gid: 1000, groups: [1000] } : undefined),
    });
    await server.listen(`unix://${path()}`);
  }

  async function as(n_uname: number): Promise<TestClient> {
    const client = await TestClient.begin({ path: path() }, { n_uname });
    clients.push(client);
    return client;
  }

  function owner(name: string): [number, number] {
    const { uid, gid } = lstatSync(join(files, name));
    return [uid, gid];
  }

  async function seen(c: TestClient, name: string): Promise<[number, number]> {
    const { uid, gid } = await c.look(await c.walk(0, name));
    return [uid, gid];
  }

  describe('with a map', () => {
    const map = ['0:100000:65534'];

    it("gives what a guest's user makes the host's ids, and shows them as the guest's", async () => {
      await serve({ map });
      const c = await as(1000);
      await c.clunk(await c.create(0, 'f', { gid: 1000 }));
      await c.mkdir(0, 'd', 0o755, 7);
      await c.call('symlink', { dfid: 0, name: 'l', symtgt: 'f', gid: 1000 });
      await c.mknod(0, 'p', 0o010644, 0, 0, 1000);
      expect(['f', 'd', 'l', 'p'].map(owner)).toEqual([
        [101_000, 101_000],
        [101_000, 100_007],
        [101_000, 101_000],
        [101_000, 101_000],
      ]);
      expect(await seen(c, 'f')).toEqual([1000, 1000]);
      expect(await seen(c, 'd')).toEqual([1000, 7]);
      expect(await seen(c, 'l')).toEqual([1000, 1000]);
      expect((await c.look(0)).uid).toBe(65_534);
    });

    it("is the host's nobody in particular as the guest's root", async () => {
      await serve({ map });
      writeFileSync(join(files, 'of the host'), 'secret', { mode: 0o600 });
      const root = await as(0);
      await root.clunk(await root.create(0, 'r'));
      expect(owner('r')).toEqual([100_000, 100_000]);
      expect(await seen(root, 'r')).toEqual([0, 0]);
      const fid = await root.walk(0, 'of the host');
      expect(await errnoOf(root.open(fid, O.RDONLY))).toBe('EACCES');
      expect(await errnoOf(root.call('setattr', { ...root.noChange, fid, valid: SET.UID, uid: 0 }))).toBe(
        'EPERM',
      );
      expect(await seen(root, 'of the host')).toEqual([65_534, 65_534]);
    });

    it('refuses ids without a counterpart: EINVAL to give them, EOVERFLOW to make with them, EACCES to attach', async () => {
      await serve({ map: ['u:0:0:1', 'u:1000:2000:10', 'g:0:0:1', 'g:1000:2000:10'] });
      const root = await as(0);
      const fid = await root.file(0, 'f');
      const set = (valid: number, ids: object) =>
        root.call('setattr', { ...root.noChange, fid, valid, ...ids });
      expect(await errnoOf(set(SET.UID, { uid: 999 }))).toBe('EINVAL');
      expect(await errnoOf(set(SET.GID, { gid: 1010 }))).toBe('EINVAL');
      await set(SET.UID | SET.GID, { uid: 1009, gid: 1001 });
      expect(owner('f')).toEqual([2009, 2001]);
      expect(await errnoOf(root.call('mkdir', { dfid: 0, name: 'd', mode: 0o755, gid: 5 }))).toBe(
        'EOVERFLOW',
      );
      expect(await errnoOf(root.create(0, 'g', { gid: 2001 }))).toBe('EOVERFLOW');
      expect(await errnoOf(root.attach(9, { n_uname: 2000 }))).toBe('EACCES');
      expect((await root.list(0)).map(entry => entry.name).sort()).toEqual(['.', '..', 'f']);
    });

    it('lets an attach without a user be nobody', async () => {
      await serve({ map });
      const c = await as(NONUNAME);
      await c.clunk(await c.create(0, 'f', { gid: NONUNAME }));
      expect(owner('f')).toEqual([65_534, 65_534]);
      expect(await seen(c, 'f')).toEqual([65_534, 65_534]);
    });

    it("maps the ids in ACLs, and shows no id of the host's that the guest has not", async () => {
      await serve({ map: ['0:0:1', '1000:2000:10'] });
      const root = await as(0);
      const fid = await root.file(0, 'f');
      await root.setXattr(fid, 'system.posix_acl_access', aclFor(1003, 1004));
      const onHost = getAttributeSync(join(files, 'f'), 'system.posix_acl_access');
      expect(onHost).toEqual(aclFor(2003, 2004));
      expect(await root.getXattr(fid, 'system.posix_acl_access')).toEqual(aclFor(1003, 1004));
      expect(await errnoOf(root.setXattr(fid, 'system.posix_acl_access', aclFor(5, 1004)))).toBe('EINVAL');
      expect(await errnoOf(root.setXattr(fid, 'system.posix_acl_access', aclFor(1003, 5)))).toBe('EINVAL');
      setAttributeSync(join(files, 'f'), 'system.posix_acl_access', aclFor(777, 2005));
      expect(await root.getXattr(fid, 'system.posix_acl_access')).toEqual(aclFor(65_534, 1005));
      expect(await errnoOf(root.getXattr(fid, 'system.nfs4_acl'))).toBe('EOPNOTSUPP');
    });

    it("hides file capabilities of the host's root from a guest whose root is another", async () => {
      await serve({ map });
      writeFileSync(join(files, 'f'), '', { mode: 0o755 });
      setAttributeSync(
        join(files, 'f'),
        'security.capability',
        Buffer.from(`01000002${'00'.repeat(16)}`, 'hex'),
      );
      const c = await as(1000);
      const fid = await c.walk(0, 'f');
      expect(await errnoOf(c.getXattr(fid, 'security.capability'))).toBe('ENODATA');
    });

    it("hides file capabilities that are another root's", async () => {
      await serve({ map: ['0:0:1000'] });
      const root = await as(0);
      const fid = await root.file(0, 'f');
      const plain = Buffer.from(`01000002${'00'.repeat(16)}`, 'hex');
      await root.setXattr(fid, 'security.capability', plain);
      expect(await root.getXattr(fid, 'security.capability')).toEqual(plain);
      const ofAnother = Buffer.from(`01000003${'00'.repeat(16)}a0860100`, 'hex');
      setAttributeSync(join(files, 'f'), 'security.capability', ofAnother);
      expect(await errnoOf(root.getXattr(fid, 'security.capability'))).toBe('ENODATA');
      expect(await errnoOf(root.setXattr(fid, 'security.capability', ofAnother))).toBe('EINVAL');
    });
  });

  describe('with squash', () => {
    it("root makes the guest's root somebody else, and its group 0, and nobody else", async () => {
      await serve({ squash: 'root', anonuid: 3000, anongid: 3001 });
      writeFileSync(join(files, 'of root'), '', { mode: 0o600 });
      const root = await as(0);
      await root.clunk(await root.create(0, 'r', { gid: 0 }));
      expect(owner('r')).toEqual([3000, 3001]);
      expect(await seen(root, 'r')).toEqual([3000, 3001]);
      expect(await errnoOf(root.open(await root.walk(0, 'of root'), O.RDONLY))).toBe('EACCES');
      const unnamed = await as(NONUNAME);
      await unnamed.mkdir(0, 'n');
      expect(owner('n')).toEqual([3000, 3001]);
      const user = await as(1000);
      await user.clunk(await user.create(0, 'u', { gid: 1000 }));
      expect(owner('u')).toEqual([1000, 1000]);
      // A user with root's group is not in the anonymous group either.
      expect(await errnoOf(user.create(0, 'v', { gid: 0 }))).toBe('EPERM');
    });

    it('all makes everybody one, nobody when no other is named', async () => {
      await serve({ squash: 'all' });
      for (const [name, uid] of [
        ['a', 0],
        ['b', 1000],
      ] as const) {
        const c = await as(uid);
        await c.clunk(await c.create(0, name, { gid: uid }));
        expect(owner(name)).toEqual([65_534, 65_534]);
        expect(
          await errnoOf(
            c.call('setattr', { ...c.noChange, fid: await c.walk(0, name), valid: SET.UID, uid: 1000 }),
          ),
        ).toBe('EPERM');
      }
    });

    it("all with a map of one shows a user of the host as the guest's own", async () => {
      chownSync(files, 5000, 5000);
      chmodSync(files, 0o700);
      await serve({ squash: 'all', anonuid: 5000, anongid: 5000, map: ['1000:5000:1'] });
      const c = await as(1000);
      await c.clunk(await c.create(0, 'f', { gid: 1000 }));
      expect(owner('f')).toEqual([5000, 5000]);
      expect(await seen(c, 'f')).toEqual([1000, 1000]);
      const root = await as(0);
      await root.clunk(await root.create(0, 'g'));
      expect(await seen(root, 'g')).toEqual([1000, 1000]);
    });
  });

  it('names all that is wrong with its ids at once, and what means nothing for mapped', async () => {
    const faults = async (options: Omit<ExportOptions, 'path'>) => {
      const opening = Server.open({ exports: [{ path: files, ...options }] });
      await expect(opening).rejects.toThrow(ConfigError);
      return ((await opening.catch(error => error)) as ConfigError).problems;
    };
    expect(await faults({ squash: 'root', map: ['1:2'] })).toEqual([
      expect.stringMatching(/squash and map are for/),
    ]);
    expect((await faults({ map: ['0:0:1'] })).join()).toContain('security_model=passthrough');
    const passthrough = { securityModel: 'passthrough' } as const;
    expect(await faults({ ...passthrough, squash: 'most' as 'all', map: ['1:2'] })).toHaveLength(2);
    expect((await faults({ ...passthrough, anonuid: 5 })).join()).toContain('squash=root');
    expect((await faults({ check: 'host' })).join()).toContain('security_model=passthrough');
    expect((await faults({ ...passthrough, check: 'nobody' as 'host' })).join()).toContain('check=guest or');
    expect((await faults({ ...passthrough, check: 'guest', squash: 'root' })).join()).toContain(
      'leave one of them out',
    );
    const many = { ...passthrough, map: Array.from({ length: 33 }, (_x, i) => `u:${i * 10}:${i * 10}:1`) };
    expect((await faults(many)).join()).toContain('takes 32');
    expect(idProblems({ ...many, check: 'host' })).toEqual([]);
    expect(await faults({ ...passthrough, squash: 'all', anonuid: -1, anongid: 0xffff_ffff })).toHaveLength(
      2,
    );
    expect((await faults({ ...passthrough, squash: 'most' as 'all' })).join()).toContain('squash=root');
  });
});
