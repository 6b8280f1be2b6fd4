import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '#base/attr.ts';
import type { Client } from '#client/client.ts';
import { guestXattr, type Model, type Seen } from './host-reader.ts';
import type { Random } from './random.ts';

const O_RDWR = 2;
const setIds = 0o6000;
const contentBytesMax = 40_000;

/** The object of each name; undefined: none. */
export type World = ReadonlyMap<string, Seen | undefined>;

/**
 * A guest's process that creates and changes objects in its own directory until the server dies. It knows what was answered,
 * and every state in which the unanswered request may have left the directory.
 */
export class Writer {
  /** State after the last reply. */
  readonly entries = new Map<string, Seen>();
  /** The possible states after the running request; all have the same names. */
  worlds: readonly World[] = [];
  answered = 0;
  readonly directory: string;
  readonly #client: Client;
  readonly #model: Model;
  readonly #uid: number;
  readonly #random: Random;
  #names = 0;
  /** Fids of the directory, as the user and as root. */
  #dir = 0;
  #rootDir = 0;

  constructor(client: Client, model: Model, directory: string, uid: number, random: Random) {
    this.#model = model;
    this.#client = client;
    this.directory = directory;
    this.#uid = uid;
    this.#random = random;
  }

  async start(): Promise<void> {
    const aname = this.#model;
    const client = this.#client;
    const root = await client.attach(aname, 0);
    await client.mkdir(root, this.directory, 0o755, 0);
    this.#rootDir = await client.walk(root, [this.directory]);
    await client.setattr(this.#rootDir, { uid: this.#uid, gid: this.#uid });
    const own = await client.attach(aname, this.#uid);
    this.#dir = await client.walk(own, [this.directory]);
    await client.clunk(root, own);
    // Held until the end: after the server's death it must be free at once.
    const fid = await client.walk(this.#dir);
    await client.lcreate(fid, 'locked', O_RDWR, 0o600, this.#uid);
    this.entries.set('locked', {
      mode: S_IFREG | 0o600,
      uid: this.#uid,
      gid: this.#uid,
      content: Buffer.alloc(0),
    });
    await client.lock(fid, { type: 1, flags: 0, start: 0, length: 0, proc_id: 1, client_id: this.directory });
  }

  /** Rejects when the server has died. */
  async run(): Promise<never> {
    const acts = [
      () => this.#create(),
      () => this.#create(),
      // Twice as often as the others, since only these are staged.
      () => this.#mkdir(),
      () => this.#mkdir(),
      () => this.#mkdir(),
      () => this.#mkdir(),
      () => this.#makeOther(),
      () => this.#rename(),
      () => this.#link(),
      () => this.#unlink(),
      () => this.#setattr(),
      () => this.#setxattr(),
    ];
    for (;;) {
      await this.#random.pick(acts)();
      this.answered++;
    }
  }

  /** One request: until the reply any of the states is possible. The last one is the requested state. */
  async #ask(worlds: readonly World[], request: () => Promise<unknown>): Promise<void> {
    this.worlds = worlds;
    await request();
    this.worlds = [];
    for (const [name, seen] of worlds.at(-1)!) {
      if (seen) this.entries.set(name, seen);
      else this.entries.delete(name);
    }
  }

  #make(name: string, seen: Seen, request: () => Promise<unknown>): Promise<void> {
    return this.#ask([new Map([[name, undefined]]), new Map([[name, seen]])], request);
  }

  #fresh(): string {
    return `n${this.#names++}`;
  }

  #pick(fits: (seen: Seen) => boolean = () => true): [string, Seen] | undefined {
    return this.#random.pick([...this.entries].filter(([name, seen]) => name !== 'locked' && fits(seen)));
  }

  #mode(): number {
    return this.#random.below(0o10000) & ~(this.#random.oneIn(4) ? 0 : setIds);
  }

  get #owner(): { uid: number; gid: number } {
    return { uid: this.#uid, gid: this.#uid };
  }

  async #create(): Promise<void> {
    const client = this.#client;
    const name = this.#fresh();
    const content = this.#random.bytes(this.#random.oneIn(3) ? 0 : this.#random.below(contentBytesMax));
    // Dropping set-id bits is not tested here.
    const mode = content.length > 0 ? this.#random.below(0o1000) : this.#mode();
    const empty = { mode: S_IFREG | mode, ...this.#owner, content: Buffer.alloc(0) };
    const fid = await client.walk(this.#dir);
    await this.#make(name, empty, () => client.lcreate(fid, name, O_RDWR, mode, this.#uid));
    const written = { ...empty, content };
    const worlds = [empty, { ...written, partial: true as const }, written].map(
      seen => new Map([[name, seen]]),
    );
    await this.#ask(worlds, () => client.writeAll(fid, content));
    if (this.#random.oneIn(4)) await client.fsync(fid);
    await client.clunk(fid);
  }

  #mkdir(): Promise<void> {
    const name = this.#fresh();
    const mode = S_IFDIR | this.#mode();
    const seen = { mode, ...this.#owner };
    // mkdir(2) sets no set-id bits: a real directory briefly lacks them.
    const less = this.#model === 'passthrough' ? [{ ...seen, mode: mode & ~setIds }] : [];
    const worlds = [undefined, ...less, seen].map(one => new Map([[name, one]]));
    return this.#ask(worlds, () => this.#client.mkdir(this.#dir, name, mode & 0o7777, this.#uid));
  }

  async #makeOther(): Promise<void> {
    const name = this.#fresh();
    const type = this.#random.pick([S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK]);
    if (type === S_IFLNK) {
      const target = `/${'t'.repeat(1 + this.#random.below(100))}`;
      const seen = { mode: S_IFLNK | 0o777, ...this.#owner, target };
      return this.#make(name, seen, () => this.#client.symlink(this.#dir, name, target, this.#uid));
    }
    const isDevice = type === S_IFCHR || type === S_IFBLK;
    // Only root creates devices.
    if (isDevice && this.#uid !== 0) return;
    const device: [number, number] = [this.#random.below(4096), this.#random.below(1 << 20)];
    const mode = type | this.#mode();
    const seen = { mode, ...this.#owner, ...(isDevice ? { device } : {}) };
    const [major, minor] = isDevice ? device : [0, 0];
    return this.#make(name, seen, () => this.#client.mknod(this.#dir, name, mode, major, minor, this.#uid));
  }

  async #rename(): Promise<void> {
    const picked = this.#pick();
    if (!picked) return;
    const [name, seen] = picked;
    const isDirectory = (mode: number) => (mode & S_IFMT) === S_IFDIR;
    const replaced = this.#random.oneIn(2)
      ? this.#pick(other => isDirectory(other.mode) === isDirectory(seen.mode))
      : undefined;
    const to = replaced && replaced[0] !== name ? replaced[0] : this.#fresh();
    const before = new Map([
      [name, seen],
      [to, this.entries.get(to)],
    ] as [string, Seen | undefined][]);
    const after = new Map([
      [name, undefined],
      [to, seen],
    ] as [string, Seen | undefined][]);
    // A rename between two links of one object keeps both.
    if (before.get(to) === seen) return;
    await this.#ask([before, after], () => this.#client.renameat(this.#dir, name, this.#dir, to));
  }

  async #link(): Promise<void> {
    const picked = this.#pick(seen => (seen.mode & S_IFMT) === S_IFIFO);
    if (!picked) return;
    const to = this.#fresh();
    const fid = await this.#client.walk(this.#rootDir, [picked[0]]);
    await this.#make(to, picked[1], () => this.#client.link(this.#rootDir, fid, to));
    await this.#client.clunk(fid);
  }

  async #unlink(): Promise<void> {
    const picked = this.#pick();
    if (!picked) return;
    const [name, seen] = picked;
    const flags = (seen.mode & S_IFMT) === S_IFDIR ? 0x200 : 0;
    await this.#ask([new Map([[name, seen]]), new Map([[name, undefined]])], () =>
      this.#client.unlinkat(this.#dir, name, flags),
    );
  }

  /** Each of three attributes may have the old or the new value. */
  async #setattr(): Promise<void> {
    const picked = this.#pick(({ mode }) => isPlain(mode));
    if (!picked) return;
    const [name, old] = picked;
    const mode = (old.mode & S_IFMT) | this.#random.below(0o1000);
    const [uid, gid] = [this.#random.below(70_000), this.#random.below(70_000)];
    // Permissions are removed before the owner changes, and granted afterwards.
    const modes = [old.mode, (old.mode & mode) | (mode & S_IFMT), mode];
    const worlds: World[] = [];
    for (const gidNow of [old.gid, gid]) {
      for (const uidNow of [old.uid, uid]) {
        for (const modeNow of modes) {
          worlds.push(new Map([[name, { ...old, mode: modeNow, uid: uidNow, gid: gidNow }]]));
        }
      }
    }
    const fid = await this.#client.walk(this.#rootDir, [name]);
    await this.#ask(worlds, () => this.#client.setattr(fid, { mode, uid, gid }));
    await this.#client.clunk(fid);
  }

  async #setxattr(): Promise<void> {
    const picked = this.#pick(({ mode }) => (mode & S_IFMT) === S_IFREG);
    if (!picked) return;
    const [name, old] = picked;
    const xattr = this.#random.bytes(30).toString('hex');
    const fid = await this.#client.walk(this.#rootDir, [name]);
    const worlds = [old, { ...old, xattr }].map(seen => new Map([[name, seen]]));
    await this.#ask(worlds, () => this.#client.setxattr(fid, guestXattr, Buffer.from(xattr)));
    await this.#client.clunk(fid);
  }
}

/** A file or directory without set-id bits, and with one name. */
function isPlain(mode: number): boolean {
  const type = mode & S_IFMT;
  return (type === S_IFREG || type === S_IFDIR) && (mode & setIds) === 0;
}
