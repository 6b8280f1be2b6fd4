/** Model of the server: a small file system with 9P on it, written from the manuals without code of src. */
import type { Differences } from '../../support/environments/environments.ts';
import {
  EXEC,
  isInOrRoot,
  may,
  need,
  needForUserXattr,
  needToChown,
  needToLink,
  needToRemove,
  needToSetTimes,
  owns,
  READ,
  WRITE,
} from './permissions.ts';

export const DIR = 0o040000;
export const FILE = 0o100000;
export const LINK = 0o120000;
export const CHAR = 0o020000;
export const BLOCK = 0o060000;

/** An expected error: the names of the allowed errnos. */
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
  readonly groups: readonly number[];
}

export interface Time {
  readonly sec: number;
  readonly nsec: number;
}

/** An object. It exists without a name as long as a fid refers to it. */
export class ModelNode {
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
  readonly entries: Map<string, ModelNode> | undefined;
  parent: ModelNode | undefined;
  /** The root of what is mounted on it: lookups return that root. */
  mounted: ModelNode | undefined;
  /** Number of the mount to which the object belongs. */
  mount = 0;
  readonly xattrs = new Map<string, string>();
  atime: number | undefined;
  /** Undefined after a change whose time the model does not know. */
  mtime: Time | undefined;
  /** Incremented with every change of the entries. */
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

  /** The bytes of a range. */
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

  /** file_remove_privs of fs/inode.c, and chown(2). `member`: the user is in its group, or root. */
  dropPrivileges(setIds: boolean, member = true): void {
    if (this.isDirectory) return;
    this.xattrs.delete('security.capability');
    if (setIds) this.mode &= this.mode & 0o010 || !member ? ~0o6000 : ~0o4000;
  }
}

/** Options of the model: differences between backends. */
export interface ModelOptions extends Differences {
  /** New objects inherit the set-gid bit and the group of a directory with that bit: inode_init_owner of fs/inode.c. */
  readonly setGidInherits: boolean;
  readonly xattrNames: readonly string[];
  /** n_uname of attaches. */
  readonly users: readonly number[];
  /** Size of directories in stat(2), which depends on the file system. */
  readonly directorySize: number | undefined;
  /** The groups of a user; default: the group with the uid's number. */
  groupsOf?(uid: number): Omit<User, 'uid'>;
  /** The server checks permissions, by the kernel's rules. */
  readonly permissions?: boolean;
  /** With the model `none` the server acts as this user, who owns everything; chown has no effect. */
  readonly server?: User;
  /** proc(5), /proc/sys/fs/protected_hardlinks. */
  readonly protectedHardlinks?: boolean;
  /** Two exports of one directory are independent: no link or rename between them. */
  readonly exports?: 'apart';
}

const longest = 255;
const root: User = { uid: 0, gid: 0, groups: [] };

/** rdev of user space: 12 bits of major above 8 of minor, then the rest of minor. */
function isBeyond(rdev: number, most: { readonly major: number; readonly minor: number }): boolean {
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  const major = Math.floor((rdev % 2 ** 20) / 256);
  return minor > most.minor || major > most.major;
}

/** The bits of a mode that `none` keeps. */
function serverModeMask(type: number): number {
  return type === DIR ? 0o3777 : 0o1777;
}

/** The file system: objects and Linux's rules. Methods throw `Refused`. */
export class Files {
  readonly root: ModelNode;
  readonly modelOptions: ModelOptions;
  /** Number of names removed or changed so far. */
  moves = 0;

  constructor(modelOptions: ModelOptions, mode: number) {
    this.modelOptions = modelOptions;
    const { uid, gid } = modelOptions.server ?? root;
    this.root = new ModelNode(DIR, mode, uid, gid);
    this.root.parent = this.root;
  }

  /** The user for permission checks: root if the server does not check them. */
  #as(user: User): User {
    return this.modelOptions.server ?? (this.modelOptions.permissions ? user : root);
  }

  /**
   * The user with the group of the new object. Where the server checks permissions (`check=host` of passthrough), EPERM if the user
   * is not in it, unless a set-gid directory gives it.
   */
  #asMaker(user: User, dir: ModelNode, gid: number): User {
    this.entries(dir);
    if (!this.modelOptions.permissions || isInOrRoot(user, gid)) return this.#as({ ...user, gid });
    if ((dir.mode & 0o2000) === 0 || dir.gid !== gid) refuse('EPERM');
    return user;
  }

  /** Mounts a directory on one in the root. */
  mountOn(name: string, mode: number): void {
    const { uid, gid } = this.modelOptions.server ?? root;
    const below = new ModelNode(DIR, mode, uid, gid);
    const top = new ModelNode(DIR, mode, uid, gid);
    top.parent = this.root;
    top.mount = 1;
    below.mounted = top;
    this.root.entries!.set(name, below);
    this.root.nlink++;
  }

  entries(dir: ModelNode): Map<string, ModelNode> {
    return dir.entries ?? refuse('ENOTDIR');
  }

  /** The entries of a directory for a lookup; checks permissions. */
  entriesFor(user: User, dir: ModelNode): Map<string, ModelNode> {
    const entries = this.entries(dir);
    need(this.#as(user), dir, EXEC);
    return entries;
  }

  /** Looks a name up. */
  child(user: User, dir: ModelNode, name: string): ModelNode {
    const found = this.entriesFor(user, dir).get(name) ?? refuse('ENOENT');
    return found.mounted ?? found;
  }

  #changed(dir: ModelNode): void {
    dir.listing++;
    dir.mtime = undefined;
  }

  /** The existing object of a name to be created. */
  existing(user: User, gid: number, dir: ModelNode, name: string): ModelNode | undefined {
    const found = this.entriesFor(this.#asMaker(user, dir, gid), dir).get(name);
    return found?.mounted ?? found;
  }

  make(
    user: User,
    dir: ModelNode,
    name: string,
    type: number,
    mode: number,
    gid: number,
    rdev = 0,
  ): ModelNode {
    const { server } = this.modelOptions;
    if ((type === CHAR || type === BLOCK) && server) {
      this.entries(dir);
      refuse('EPERM');
    }
    if (this.existing(user, gid, dir, name)) refuse('EEXIST');
    if (dir.nlink === 0) refuse('ENOENT');
    const maker = this.#asMaker(user, dir, gid);
    need(maker, dir, WRITE | EXEC);
    const isWhiteout = type === CHAR && rdev === 0;
    if ((type === CHAR || type === BLOCK) && !isWhiteout && maker.uid !== 0) refuse('EPERM');
    if (isWhiteout && this.modelOptions.whiteouts === 'refused') refuse('EPERM');
    const { devicesMax } = this.modelOptions;
    if (devicesMax && isBeyond(rdev, devicesMax)) refuse('EINVAL');
    const inherits = this.modelOptions.setGidInherits && (dir.mode & 0o2000) !== 0;
    const owner = server ?? { uid: user.uid, gid };
    const kept = server ? mode & serverModeMask(type) : mode;
    const node = new ModelNode(type, kept, owner.uid, inherits ? dir.gid : owner.gid);
    node.mount = dir.mount;
    node.rdev = rdev;
    if (inherits) this.#inheritSetGid(maker, dir, node);
    this.entries(dir).set(name, node);
    this.#changed(dir);
    if (node.isDirectory) {
      node.parent = dir;
      dir.nlink++;
    }
    return node;
  }

  /** Undoes a creation that the file system refused. */
  unmake(dir: ModelNode, name: string): void {
    this.entries(dir).delete(name);
  }

  /** inode_init_owner and mode_strip_sgid of fs/inode.c; set-id bits of a directory are set by a chmod of its creator. */
  #inheritSetGid(maker: User, dir: ModelNode, node: ModelNode): void {
    const asked = node.mode;
    if (node.isDirectory) {
      node.mode = (asked & 0o1777) | 0o2000;
      if ((asked & ~node.mode) !== 0) this.#setMode(maker, node, asked | 0o2000);
    } else if ((asked & 0o2010) === 0o2010 && !isInOrRoot(maker, dir.gid)) node.mode &= ~0o2000;
  }

  /** setattr_prepare of fs/attr.c. */
  #setMode(user: User, node: ModelNode, mode: number): void {
    node.mode = isInOrRoot(user, node.gid) ? mode : mode & ~0o2000;
  }

  link(user: User, node: ModelNode, dir: ModelNode, name: string): void {
    // The kernel checks the name first; the server recognizes a directory before that.
    if (node.isDirectory && dir.entries) {
      const others = ['EEXIST', 'ENOENT', 'EACCES', 'EXDEV'].filter(
        errno =>
          (errno === 'EEXIST' && dir.entries!.has(name)) ||
          (errno === 'ENOENT' && dir.nlink === 0) ||
          (errno === 'EACCES' && !may(this.#as(user), dir, EXEC)) ||
          (errno === 'EXDEV' && dir.mount !== node.mount),
      );
      refuse('EPERM', ...others);
    }
    const as = this.#as(user);
    const entries = this.entriesFor(user, dir);
    if (entries.has(name)) refuse('EEXIST');
    if (dir.mount !== node.mount) refuse('EXDEV', ...(dir.nlink === 0 ? ['ENOENT'] : []));
    // Not reached for an object without a name or in a removed directory, in server and kernel.
    const nowhere = node.nlink === 0 || dir.nlink === 0;
    if (this.modelOptions.protectedHardlinks) needToLink(as, node, ...(nowhere ? ['ENOENT'] : []));
    if (dir.nlink === 0) refuse('ENOENT');
    need(as, dir, WRITE | EXEC);
    if (node.nlink === 0) refuse('ENOENT');
    entries.set(name, node);
    node.nlink++;
    this.#changed(dir);
  }

  unlink(user: User, dir: ModelNode, name: string, directory: boolean): void {
    const entries = this.entriesFor(user, dir);
    const victim = entries.get(name) ?? refuse('ENOENT');
    needToRemove(this.#as(user), dir, victim);
    if (!directory && victim.isDirectory) refuse('EISDIR');
    if (directory && !victim.isDirectory) refuse('ENOTDIR');
    if (victim.mounted) refuse('EBUSY');
    this.#needEmpty(victim);
    entries.delete(name);
    this.#loseName(dir, victim);
    this.#changed(dir);
  }

  #needEmpty(node: ModelNode, other?: string): void {
    if (!node.entries || node.entries.size === 0) return;
    // With `mapped`, the server looks for orphans in it (backend/local/orphans.ts).
    node.atime = undefined;
    refuse('ENOTEMPTY', ...(other ? [other] : []));
  }

  #loseName(dir: ModelNode, victim: ModelNode): void {
    this.moves++;
    if (victim.isDirectory) {
      victim.nlink = 0;
      dir.nlink--;
    } else victim.nlink--;
  }

  #isWithin(dir: ModelNode, top: ModelNode): boolean {
    for (let at = dir; ; at = at.parent!) {
      if (at === top) return true;
      if (at.parent === at) return false;
    }
  }

  /** rename(2), in the order of do_renameat2 of fs/namei.c: a removed directory has no entries. */
  rename(user: User, fromDir: ModelNode, from: string, toDir: ModelNode, to: string): void {
    const as = this.#as(user);
    this.entries(toDir);
    const [source, target] = [this.entriesFor(user, fromDir), this.entriesFor(user, toDir)];
    if (fromDir.mount !== toDir.mount) refuse('EXDEV');
    const moved = source.get(from) ?? refuse('ENOENT');
    if (toDir.nlink === 0) refuse('ENOENT');
    if (this.#isWithin(toDir, moved)) refuse('EINVAL');
    const victim = target.get(to);
    if (victim && this.#isWithin(fromDir, victim)) this.#needEmpty(victim);
    if (victim === moved) return;
    needToRemove(as, fromDir, moved);
    if (victim) needToRemove(as, toDir, victim);
    else need(as, toDir, WRITE | EXEC);
    if (victim && moved.isDirectory && !victim.isDirectory) refuse('ENOTDIR');
    if (victim && !moved.isDirectory && victim.isDirectory) refuse('EISDIR');
    if (moved.isDirectory && fromDir !== toDir) need(as, moved, WRITE);
    if (moved.mounted || victim?.mounted) refuse('EBUSY');
    if (victim) this.#needEmpty(victim, this.modelOptions.renameOver);
    source.delete(from);
    target.set(to, moved);
    this.moves++;
    if (moved.isDirectory) {
      moved.parent = toDir;
      fromDir.nlink--;
      toDir.nlink++;
    }
    if (victim) this.#loseName(toDir, victim);
    this.#changed(fromDir);
    this.#changed(toDir);
  }

  /** open(2). */
  open(user: User, node: ModelNode, { reads = false, writes = false, truncates = false }): void {
    if (!node.isDirectory && node.type !== FILE) refuse(node.type === LINK ? 'ELOOP' : 'ENXIO');
    need(this.#as(user), node, (reads ? READ : 0) | (writes || truncates ? WRITE : 0));
    if (truncates) this.#resize(user, node, 0);
  }

  #resize(user: User, node: ModelNode, size: number): void {
    this.dropPrivileges(user, node);
    node.resize(size);
  }

  /** Whether a set-gid bit without group execute survives a change by a user. */
  #counts(user: User, node: ModelNode): boolean {
    const { permissions, setGid } = this.modelOptions;
    return !permissions || setGid === 'kept' || isInOrRoot(user, node.gid);
  }

  /** Drops privileges before a write. */
  dropPrivileges(user: User, node: ModelNode): void {
    node.dropPrivileges(user.uid !== 0, this.#counts(user, node));
  }

  /** `open`: the file is open for writing. */
  truncate(user: User, node: ModelNode, size: number, open: boolean): void {
    if (!open) need(this.#as(user), node, WRITE);
    this.#resize(user, node, size);
  }

  chown(user: User, node: ModelNode, uid: number | undefined, gid: number | undefined): void {
    if (this.modelOptions.server) return;
    const as = this.#as(user);
    needToChown(as, node, uid, gid);
    node.dropPrivileges(true, this.#counts(as, node));
    node.uid = uid ?? node.uid;
    node.gid = gid ?? node.gid;
  }

  chmod(user: User, node: ModelNode, mode: number): void {
    if (node.type === LINK) refuse('EOPNOTSUPP');
    const as = this.#as(user);
    if (owns(as, node)) {
      this.#setMode(as, node, this.modelOptions.server ? mode & serverModeMask(node.type) : mode);
      return;
    }
    // From users who may write, the server takes it as part of a write (security/write-access.ts).
    const dropsSetIdOnly = (node.mode & ~mode & ~0o6000) === 0 && (mode & ~node.mode) === 0;
    if (node.type !== FILE || !may(as, node, WRITE) || !dropsSetIdOnly) refuse('EPERM');
  }

  /** `bothNow`: both times are set to the present time. */
  setTimes(user: User, node: ModelNode, bothNow: boolean): void {
    needToSetTimes(this.#as(user), node, bothNow);
  }

  /** xattr(7). */
  checkXattr(node: ModelNode, user: User, name: string, use: 'get' | 'set'): void {
    if (name.length > longest) refuse('ERANGE');
    const [space] = name.split('.', 1);
    if (name.startsWith('user.')) {
      if (node.type !== FILE && !node.isDirectory) refuse(use === 'get' ? 'ENODATA' : 'EPERM');
      needForUserXattr(this.#as(user), node, use);
    } else if (this.modelOptions.server && !name.startsWith('system.posix_acl_')) {
      refuse('EOPNOTSUPP');
    } else if (name.startsWith('trusted.')) {
      if (user.uid !== 0) refuse(use === 'get' ? 'ENODATA' : 'EPERM');
    } else if (name === 'system.posix_acl_access' || name === 'system.posix_acl_default') {
      if (node.type === LINK) refuse('EOPNOTSUPP');
    } else if (space !== 'security' || !name.includes('.')) refuse('EOPNOTSUPP');
  }

  setXattr(node: ModelNode, user: User, name: string, value: string, flags: number): void {
    this.checkXattr(node, user, name, 'set');
    if (flags & 1 && node.xattrs.has(name)) refuse('EEXIST');
    const replaces = flags === 2 || (flags === 3 && this.modelOptions.xattrFlags !== 'create wins');
    if (replaces && !node.xattrs.has(name)) refuse('ENODATA');
    node.xattrs.set(name, value);
  }

  removeXattr(node: ModelNode, user: User, name: string): void {
    this.checkXattr(node, user, name, 'set');
    if (!node.xattrs.delete(name)) refuse('ENODATA');
  }

  listXattr(node: ModelNode, user: User): string[] {
    return [...node.xattrs.keys()].filter(name => user.uid === 0 || !name.startsWith('trusted.'));
  }
}
