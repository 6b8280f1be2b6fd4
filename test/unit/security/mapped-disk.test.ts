import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getAttributeSync, listAttributesSync, removeAttributeSync, setAttributeSync } from 'fs-xattr';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext, NewNode } from '#backend/tree.ts';
import { Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK } from '#base/attr.ts';
import {
  EACCES,
  EINVAL,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOTEMPTY,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  Errno,
} from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { contextOf } from '../../support/context.ts';

const how = { read: true, write: true, truncate: false, sync: 'none' as const };

/** The error of a call that throws or rejects. */
async function refusal(act: () => unknown): Promise<unknown> {
  try {
    await act();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('the format of mapped on disk, byte for byte that of QEMU', () => {
  let dir: string;
  let tree: LocalTree;
  let user: CallContext;
  let complaints: string[];
  const at = (name: string) => join(dir, name);
  const word = (name: string, attribute: string) =>
    getAttributeSync(at(name), `user.virtfs.${attribute}`).toString('hex');
  const mode = (name: string) => getAttributeSync(at(name), 'user.virtfs.mode').readUInt32LE(0).toString(8);

  beforeEach(async () => {
    process.umask(0);
    dir = mkdtempSync(join(tmpdir(), 'ninepd-mapped-'));
    complaints = [];
    const model = mapped({ fmode: 0o640, dmode: 0o710 }, text => complaints.push(text));
    tree = await LocalTree.open(dir, { descriptors: new FdBudget(64), model });
    user = contextOf(await tree.credentials(noSession, 1000));
  });
  afterEach(() => {
    tree.close();
    rmSync(dir, { recursive: true });
  });

  async function create(name: string, permissions: number) {
    const made = await tree.create(
      user,
      tree.root,
      nameOf(name),
      { ...how, exclusive: true, mode: permissions, gid: 2000 },
      new Attr(),
    );
    tree.closeFile(made.file);
    return made.node;
  }

  async function make(name: string, what: NewNode) {
    return tree.make(user, tree.root, nameOf(name), what, new Attr());
  }

  async function look(name: string): Promise<Attr> {
    const attr = new Attr();
    const node = await tree.walk(user, tree.root, nameOf(name), attr);
    if (node instanceof Errno) throw node;
    tree.release(node);
    return attr;
  }

  async function node(name: string) {
    const found = await tree.walk(user, tree.root, nameOf(name), new Attr());
    if (found instanceof Errno) throw found;
    return found;
  }

  it('keeps owner and mode of a file in little-endian words and no rdev', async () => {
    tree.release(await create('f', 0o4751));
    expect([word('f', 'uid'), word('f', 'gid'), mode('f')]).toEqual(['e8030000', 'd0070000', '104751']);
    expect(listAttributesSync(at('f')).sort()).toEqual([
      'user.virtfs.gid',
      'user.virtfs.mode',
      'user.virtfs.uid',
    ]);
    expect((statSync(at('f')).mode & 0o7777).toString(8)).toBe('640');
  });

  it('creates a directory with dmode and keeps its type in the mode', async () => {
    tree.release(await make('d', { type: 'directory', mode: 0o3775, gid: 5 }));
    expect([mode('d'), word('d', 'gid')]).toEqual(['43775', '05000000']);
    expect((statSync(at('d')).mode & 0o7777).toString(8)).toBe('710');
  });

  it('keeps a symlink as a file whose content is the target, without NUL or newline', async () => {
    const target = `\xff/${'x'.repeat(4000)}`;
    const link = await make('s', { type: 'symlink', target, gid: 1 });
    expect(lstatSync(at('s')).isFile()).toBe(true);
    expect(readFileSync(at('s')).toString('latin1')).toBe(target);
    expect(mode('s')).toBe('120777');
    expect(await tree.readlink(user, link)).toBe(target);
    tree.release(link);
  });

  it.each([
    ['a character device', S_IFCHR | 0o620, 0x103, '0301000000000000'],
    ['a block device with a large minor number', S_IFBLK | 0o660, 0x11110370, '7003111100000000'],
    ['a FIFO', S_IFIFO | 0o600, 0, '0000000000000000'],
    ['a socket', S_IFSOCK | 0o777, 0, '0000000000000000'],
  ])('keeps %s as an empty file', async (_what, full, rdev, bytes) => {
    tree.release(await make('n', { type: 'special', mode: full, rdev, gid: 0 }));
    expect([lstatSync(at('n')).isFile(), lstatSync(at('n')).size]).toEqual([true, 0]);
    expect([mode('n'), word('n', 'rdev')]).toEqual([full.toString(8), bytes]);
  });

  it('shows a record that another server wrote', async () => {
    writeFileSync(at('q'), 'target');
    setAttributeSync(at('q'), 'user.virtfs.uid', Buffer.from('39300000', 'hex'));
    setAttributeSync(at('q'), 'user.virtfs.gid', Buffer.from('01000000', 'hex'));
    setAttributeSync(at('q'), 'user.virtfs.mode', Buffer.from('ffa10000', 'hex'));
    const attr = await look('q');
    expect([attr.uid, attr.gid, attr.mode]).toEqual([12345, 1, S_IFLNK | 0o777]);
  });

  it('shows a file without a record with the owner and mode on the host', async () => {
    writeFileSync(at('native'), '');
    chmodSync(at('native'), 0o604);
    const attr = await look('native');
    expect([attr.uid, attr.gid, attr.mode]).toEqual([process.getuid!(), process.getgid!(), S_IFREG | 0o604]);
  });

  it('reads symlinks of the host and never follows them', async () => {
    symlinkSync('/etc/passwd', at('native'));
    const link = await node('native');
    expect(await tree.readlink(user, link)).toBe('/etc/passwd');
    expect(await refusal(() => tree.open(user, link, how))).toBe(ELOOP);
    tree.release(link);
  });

  it.each(['uid', 'gid', 'mode'])('treats a %s of the wrong length as absent and logs it', async field => {
    tree.release(await create('bad', 0o644));
    for (const value of ['', '01', '0102030405']) {
      setAttributeSync(at('bad'), `user.virtfs.${field}`, Buffer.from(value, 'hex'));
      const attr = await look('bad');
      const host = statSync(at('bad'));
      const shown = { uid: attr.uid, gid: attr.gid, mode: attr.mode }[field];
      expect(shown).toBe({ uid: host.uid, gid: host.gid, mode: host.mode }[field]);
    }
    expect(complaints.length).toBeGreaterThan(0);
    expect(complaints[0]).toContain(`user.virtfs.${field}`);
  });

  it('ignores an impossible type: a directory is one on both sides', async () => {
    tree.release(await make('d', { type: 'directory', mode: 0o755, gid: 0 }));
    setAttributeSync(at('d'), 'user.virtfs.mode', Buffer.from('ed810000', 'hex'));
    expect((await look('d')).mode).toBe(S_IFDIR | 0o755);
    writeFileSync(at('f'), '');
    setAttributeSync(at('f'), 'user.virtfs.mode', Buffer.from('ed410000', 'hex'));
    expect((await look('f')).mode).toBe(S_IFREG | 0o755);
    setAttributeSync(at('f'), 'user.virtfs.mode', Buffer.from('ffff0000', 'hex'));
    expect((await look('f')).mode).toBe(S_IFREG | 0o7777);
  });

  it('never changes the type by chmod, whatever bits the client sends', async () => {
    const fifo = await make('p', { type: 'special', mode: S_IFIFO | 0o600, rdev: 0, gid: 0 });
    await tree.change(user, fifo, { mode: 0o644 });
    expect(mode('p')).toBe('10644');
    tree.release(fifo);
  });

  it('clears set-id bits and capabilities on chown, unless the same message sets the mode', async () => {
    const file = await create('c', 0o6755);
    setAttributeSync(at('c'), 'user.virtfs.security.capability', Buffer.from('01'));
    await tree.change(user, file, { uid: 5 });
    expect([mode('c'), word('c', 'uid')]).toEqual(['100755', '05000000']);
    expect(listAttributesSync(at('c'))).not.toContain('user.virtfs.security.capability');
    await tree.change(user, file, { gid: 6, mode: 0o4700 });
    expect(mode('c')).toBe('104700');
    tree.release(file);
  });

  it('shares the record among hard links', async () => {
    const file = await create('one', 0o600);
    await tree.link(user, file, tree.root, nameOf('two'));
    linkSync(at('two'), at('three'));
    await tree.change(user, file, { mode: 0o777 });
    expect([mode('one'), mode('two'), mode('three')]).toEqual(['100777', '100777', '100777']);
    tree.release(file);
  });

  it('keeps other xattr namespaces under its own prefix and hides the record', async () => {
    const file = await create('x', 0o644);
    const root: CallContext = contextOf(await tree.credentials(noSession, 0));
    const acl = Buffer.from('0200000001000600ffffffff04000400ffffffff20000400ffffffff', 'hex');
    await tree.setXattr(root, file, 'system.posix_acl_access', asOwned(acl), 0);
    await tree.setXattr(root, file, 'security.capability', asOwned(Buffer.from('cap')), 0);
    await tree.setXattr(root, file, 'trusted.t', asOwned(Buffer.from('t')), 0);
    await tree.setXattr(root, file, 'user.plain', asOwned(Buffer.from('p')), 0);
    expect(getAttributeSync(at('x'), 'user.virtfs.system.posix_acl_access').equals(acl)).toBe(true);
    expect(getAttributeSync(at('x'), 'user.virtfs.security.capability').toString()).toBe('cap');
    expect(getAttributeSync(at('x'), 'user.virtfs.trusted.t').toString()).toBe('t');
    const names = async (actor: CallContext) =>
      Buffer.from(await tree.listXattr(actor, file))
        .toString()
        .split('\0')
        .filter(Boolean)
        .sort();
    expect(await names(root)).toEqual([
      'security.capability',
      'system.posix_acl_access',
      'trusted.t',
      'user.plain',
    ]);
    expect(await names(user)).toEqual(['security.capability', 'system.posix_acl_access', 'user.plain']);
    expect(await refusal(() => tree.getXattr(user, file, 'trusted.t'))).toBe(ENODATA);
    expect(await refusal(() => tree.setXattr(user, file, 'trusted.t', asOwned(Buffer.from('u')), 0))).toBe(
      EPERM,
    );
    tree.release(file);
  });

  it('lets no client read, forge or remove its record', async () => {
    const file = await create('r', 0o600);
    const root: CallContext = contextOf(await tree.credentials(noSession, 0));
    for (const field of ['uid', 'gid', 'mode', 'rdev', 'security.capability', 'anything']) {
      const name = `user.virtfs.${field}`;
      expect(await refusal(() => tree.getXattr(root, file, name))).toBe(ENODATA);
      expect(await refusal(() => tree.setXattr(root, file, name, asOwned(Buffer.alloc(4)), 0))).toBe(EACCES);
      expect(await refusal(() => tree.removeXattr(root, file, name))).toBe(EACCES);
    }
    expect(await refusal(() => tree.setXattr(root, file, 'system.other', asOwned(Buffer.alloc(4)), 0))).toBe(
      EOPNOTSUPP,
    );
    tree.release(file);
  });

  it('refuses user xattrs on types other than file and directory', async () => {
    const link = await make('s', { type: 'symlink', target: 't', gid: 0 });
    expect(await refusal(() => tree.getXattr(user, link, 'user.x'))).toBe(ENODATA);
    expect(await refusal(() => tree.setXattr(user, link, 'user.x', asOwned(Buffer.alloc(1)), 0))).toBe(EPERM);
    tree.release(link);
  });

  it('never opens a file that represents a device, and reads no link from a regular file', async () => {
    const device = await make('n', { type: 'special', mode: S_IFCHR | 0o666, rdev: 0x103, gid: 0 });
    const file = await create('f', 0o644);
    expect(await refusal(() => tree.open(user, device, how))).toBe(ENXIO);
    expect(await refusal(() => tree.readlink(user, file))).toBe(EINVAL);
    tree.release(device);
    tree.release(file);
  });

  it('never opens a real FIFO or device of the host', async () => {
    execFileSync('mkfifo', [at('fifo')]);
    const fifo = await node('fifo');
    expect(await refusal(() => tree.open(user, fifo, how))).toBe(ENXIO);
    expect(
      await refusal(() =>
        tree.create(
          user,
          tree.root,
          nameOf('fifo'),
          { ...how, exclusive: false, mode: 0o600, gid: 0 },
          new Attr(),
        ),
      ),
    ).toBe(ENXIO);
    tree.release(fifo);
  });

  it('hides its temporary names', async () => {
    const own = nameOf('.ninepd-new-0123');
    writeFileSync(at(own), '');
    expect(await tree.walk(user, tree.root, own, new Attr())).toBe(ENOENT);
    expect(await refusal(() => make(own, { type: 'directory', mode: 0o755, gid: 0 }))).toBe(EINVAL);
    expect(await refusal(() => tree.unlink(user, tree.root, own, 'file'))).toBe(ENOENT);
    const open = await tree.openDir(user, tree.root);
    const into = new Uint8Array(4096);
    const bytes = await tree.readdir(user, open, 0, 0, asOwned(into));
    expect(Buffer.from(into.buffer, 0, bytes).toString('latin1')).not.toContain('.ninepd-new-');
    tree.closeDir(open);
  });

  it('removes orphans of a killed server where a directory is listed or must be empty, and nothing else', async () => {
    const unfinished = (digit: string) => `.ninepd-new-${digit.repeat(24)}`;
    const old = new Date(Date.now() - 60_000);
    const leave = (path: string, when = old) => {
      mkdirSync(at(path), { mode: 0o700 });
      utimesSync(at(path), when, when);
    };
    const list = async () => {
      const open = await tree.openDir(user, tree.root);
      const into = new Uint8Array(4096);
      await tree.readdir(user, open, 0, 0, asOwned(into));
      tree.closeDir(open);
      await new Promise(setImmediate);
    };
    leave(unfinished('1'));
    // Before 1970.
    leave(unfinished('5'), new Date(-60_000));
    leave('.ninepd-new-notes');
    leave(unfinished('2'));
    writeFileSync(at(`${unfinished('2')}/content`), '');
    utimesSync(at(unfinished('2')), old, old);
    mkdirSync(at(unfinished('3')), { mode: 0o700 });
    await list();
    // On a busy machine a removal may end after the listing.
    await vi.waitFor(() =>
      expect(readdirSync(at('.')).sort()).toEqual(
        ['.ninepd-new-notes', unfinished('2'), unfinished('3')].sort(),
      ),
    );

    for (const name of ['gone', 'replaced', 'replacing', 'kept'])
      tree.release(await make(name, { type: 'directory', mode: 0o755, gid: 0 }));
    for (const name of ['gone', 'replaced', 'kept']) leave(`${name}/${unfinished('4')}`);
    await tree.unlink(user, tree.root, nameOf('gone'), 'directory');
    await tree.rename(user, tree.root, nameOf('replacing'), tree.root, nameOf('replaced'));
    writeFileSync(at('kept/file'), '');
    expect(await refusal(() => tree.unlink(user, tree.root, nameOf('kept'), 'directory'))).toBe(ENOTEMPTY);
    mkdirSync(at('replaced/.ninepd-new-mine'));
    expect(await refusal(() => tree.unlink(user, tree.root, nameOf('replaced'), 'directory'))).toBe(
      ENOTEMPTY,
    );
    expect(existsSync(at('gone'))).toBe(false);
  });

  it('shows a record that a program on the host changes at once', async () => {
    const file = await create('live', 0o644);
    setAttributeSync(at('live'), 'user.virtfs.mode', Buffer.from('80810000', 'hex'));
    expect((await look('live')).mode).toBe(S_IFREG | 0o600);
    removeAttributeSync(at('live'), 'user.virtfs.uid');
    expect((await look('live')).uid).toBe(process.getuid!());
    tree.release(file);
  });
});
