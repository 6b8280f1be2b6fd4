/** What the program should be: a small file system and 9P on it, written from the manuals and shared with nothing in src. */

export const DIR = 0o040000;
export const FILE = 0o100000;
export const LINK = 0o120000;
export const CHAR = 0o020000;
export const BLOCK = 0o060000;

/** An answer that is an error: its name, or several of which each will do. */
export class Refused {
  readonly names: readonly string[];
  constructor(...names: readonly string[]) {
    this.names = names;
  }
}

export function refuse(...names: readonly string[]): never {
  throw new Refused(...names);
}

export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** An object. It lives on without a name as long as a fid leads to it, and nobody needs to be told when it goes. */
export class Thing {
  readonly type: number;
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  rdev = 0;
  size = 0;
  /** Bytes of the content that are not 0. */
  readonly content = new Map<number, number>();
  target = '';
  readonly entries: Map<string, Thing> | undefined;
  parent: Thing | undefined;
  readonly xattrs = new Map<string, string>();
  atime: number | undefined;
  mtime: number | undefined;
  /** Moves with every change of the entries. */
  listing = 0;

  constructor(type: number, mode: number, uid: number, gid: number) {
    this.type = type;
    this.mode = mode;
    this.uid = uid;
    this.gid = gid;
    this.nlink = type === DIR ? 2 : 1;
    this.entries = type === DIR ? new Map() : undefined;
  }

  get isDirectory(): boolean {
    return this.type === DIR;
  }

  /** What lies at these positions. */
  read(offset: number, count: number): Buffer {
    const bytes = Buffer.alloc(Math.max(0, Math.min(count, this.size - offset)));
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.content.get(offset + i) ?? 0;
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    for (const [i, byte] of bytes.entries()) this.content.set(offset + i, byte);
    this.size = Math.max(this.size, offset + bytes.length);
    this.mtime = undefined;
  }

  resize(size: number): void {
    for (const at of this.content.keys()) if (at >= size) this.content.delete(at);
    this.size = size;
    this.mtime = undefined;
  }

  /** file_remove_privs of fs/inode.c, and chown(2). */
  dropPrivileges(setIds: boolean): void {
    if (this.isDirectory) return;
    this.xattrs.delete('security.capability');
    if (setIds) this.mode &= this.mode & 0o010 ? ~0o6000 : ~0o4000;
  }
}

/** What is not the same on every backend. */
export interface Manner {
  /** Directories with the set-gid bit hand it and their group on: inode_init_owner of fs/inode.c. */
  readonly setGidInherits: boolean;
  readonly xattrNames: readonly string[];
  /** n_uname of attaches. */
  readonly users: readonly number[];
  /** stat(2) says a size for directories that depends on the file system. */
  readonly directorySize: number | undefined;
}

const longest = 255;

/** The objects and the rules of Linux for them; each method throws `Refused`. */
export class Files {
  readonly root: Thing;
  readonly manner: Manner;

  constructor(manner: Manner, mode: number) {
    this.manner = manner;
    this.root = new Thing(DIR, mode, 0, 0);
    this.root.parent = this.root;
  }

  entries(dir: Thing): Map<string, Thing> {
    return dir.entries ?? refuse('ENOTDIR');
  }

  /** A directory that a new name may be put in. */
  #forNew(dir: Thing, name: string): Map<string, Thing> {
    const entries = this.entries(dir);
    if (entries.has(name)) refuse('EEXIST');
    if (dir.nlink === 0) refuse('ENOENT');
    return entries;
  }

  #changed(dir: Thing): void {
    dir.listing++;
    dir.mtime = undefined;
  }

  make(user: User, dir: Thing, name: string, type: number, mode: number, gid: number): Thing {
    const entries = this.#forNew(dir, name);
    const inherits = this.manner.setGidInherits && (dir.mode & 0o2000) !== 0;
    const own = inherits && type === DIR ? mode | 0o2000 : mode;
    const thing = new Thing(type, own, user.uid, inherits ? dir.gid : gid);
    entries.set(name, thing);
    this.#changed(dir);
    if (thing.isDirectory) {
      thing.parent = dir;
      dir.nlink++;
    }
    return thing;
  }

  link(thing: Thing, dir: Thing, name: string): void {
    // The kernel looks at the name first; the server knows a directory before that.
    if (thing.isDirectory && dir.entries) {
      refuse('EPERM', ...(dir.entries.has(name) ? ['EEXIST'] : []), ...(dir.nlink === 0 ? ['ENOENT'] : []));
    }
    const entries = this.#forNew(dir, name);
    if (thing.nlink === 0) refuse('ENOENT');
    entries.set(name, thing);
    thing.nlink++;
    this.#changed(dir);
  }

  unlink(dir: Thing, name: string, directory: boolean): void {
    const entries = this.entries(dir);
    const victim = entries.get(name) ?? refuse('ENOENT');
    if (!directory && victim.isDirectory) refuse('EISDIR');
    if (directory && !victim.isDirectory) refuse('ENOTDIR');
    if (victim.entries && victim.entries.size > 0) refuse('ENOTEMPTY');
    entries.delete(name);
    this.#loseName(dir, victim);
    this.#changed(dir);
  }

  #loseName(dir: Thing, victim: Thing): void {
    if (victim.isDirectory) {
      victim.nlink = 0;
      dir.nlink--;
    } else victim.nlink--;
  }

  #isWithin(dir: Thing, top: Thing): boolean {
    for (let at = dir; ; at = at.parent!) {
      if (at === top) return true;
      if (at.parent === at) return false;
    }
  }

  /** rename(2), in the order of do_renameat2 of fs/namei.c: a removed directory has no entries to be looked up. */
  rename(fromDir: Thing, from: string, toDir: Thing, to: string): void {
    const [source, target] = [this.entries(fromDir), this.entries(toDir)];
    const moved = source.get(from) ?? refuse('ENOENT');
    if (toDir.nlink === 0) refuse('ENOENT');
    if (this.#isWithin(toDir, moved)) refuse('EINVAL');
    const victim = target.get(to);
    if (victim && this.#isWithin(fromDir, victim)) refuse('ENOTEMPTY');
    if (victim === moved) return;
    if (victim && moved.isDirectory && !victim.isDirectory) refuse('ENOTDIR');
    if (victim && !moved.isDirectory && victim.isDirectory) refuse('EISDIR');
    if (victim?.entries && victim.entries.size > 0) refuse('ENOTEMPTY');
    source.delete(from);
    target.set(to, moved);
    if (moved.isDirectory) {
      moved.parent = toDir;
      fromDir.nlink--;
      toDir.nlink++;
    }
    if (victim) this.#loseName(toDir, victim);
    this.#changed(fromDir);
    this.#changed(toDir);
  }

  /** open(2) of what is no directory. */
  refuseToOpen(thing: Thing): void {
    if (thing.type === FILE) return;
    refuse(thing.isDirectory ? 'EISDIR' : thing.type === LINK ? 'ELOOP' : 'ENXIO');
  }

  truncate(user: User, thing: Thing, size: number): void {
    thing.dropPrivileges(user.uid !== 0);
    thing.resize(size);
  }

  /** xattr(7). */
  checkXattr(thing: Thing, user: User, name: string, use: 'get' | 'set'): void {
    if (name.length > longest) refuse('ERANGE');
    const [space] = name.split('.', 1);
    if (name.startsWith('user.')) {
      if (thing.type !== FILE && !thing.isDirectory) refuse(use === 'get' ? 'ENODATA' : 'EPERM');
    } else if (name.startsWith('trusted.')) {
      if (user.uid !== 0) refuse(use === 'get' ? 'ENODATA' : 'EPERM');
    } else if (name === 'system.posix_acl_access' || name === 'system.posix_acl_default') {
      if (thing.type === LINK) refuse('EOPNOTSUPP');
    } else if (space !== 'security' || !name.includes('.')) refuse('EOPNOTSUPP');
  }

  setXattr(thing: Thing, user: User, name: string, value: string, flags: number): void {
    this.checkXattr(thing, user, name, 'set');
    if (flags & 1 && thing.xattrs.has(name)) refuse('EEXIST');
    if (flags & 2 && !thing.xattrs.has(name)) refuse('ENODATA');
    thing.xattrs.set(name, value);
  }

  removeXattr(thing: Thing, user: User, name: string): void {
    this.checkXattr(thing, user, name, 'set');
    if (!thing.xattrs.delete(name)) refuse('ENODATA');
  }

  listXattr(thing: Thing, user: User): string[] {
    return [...thing.xattrs.keys()].filter(name => user.uid === 0 || !name.startsWith('trusted.'));
  }
}
