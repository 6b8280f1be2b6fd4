import { S_IFBLK, S_IFCHR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { EEXIST, ENOENT } from '#base/errno.ts';
import type { Client } from '#client/client.ts';
import { Disconnected } from '#client/wire.ts';
import type { Random } from './random.ts';

const O_RDWR = 2;
const directories = 5;
const entriesMax = 60;
const fileBytesMax = 96 * 1024;
/** Longer than a request of a closed connection may run. */
const afterCutMs = 250;

/** The expected state of an object. */
interface Entry {
  mode: number;
  uid: number;
  gid: number;
  content: Buffer;
  target: string;
  readonly xattrs: Map<string, Buffer>;
  /** Its hard links, as from `place`. */
  readonly names: Set<string>;
}

/**
 * A guest with a model of its own directory: changes it at random and compares the server's replies with the model. Its
 * connection may be cut at any moment; the object of the running request is then abandoned, and everything else must be
 * unchanged.
 */
export class CheckedGuest {
  readonly #connect: () => Promise<Client>;
  readonly #aname: string;
  readonly #home: string;
  readonly #random: Random;
  readonly #entries = new Map<string, Entry>();
  readonly #lost = new Set<string>();
  #names = 0;
  #touched: readonly string[] = [];
  #client: Client | undefined;
  /** Fids and names of the directories. */
  #dirs: { fid: number; name: string }[] = [];
  operations = 0;
  compared = 0;
  cuts = 0;
  #isCut = false;

  constructor(connect: () => Promise<Client>, aname: string, home: string, random: Random) {
    this.#connect = connect;
    this.#aname = aname;
    this.#home = home;
    this.#random = random;
  }

  /** Creates the directory; a later call reconnects to it. */
  async start(): Promise<void> {
    const client = await this.#connect();
    this.#client = client;
    const root = await client.attach(this.#aname, 0);
    await client.mkdir(root, this.#home).catch(unless(EEXIST));
    const home = await client.walk(root, [this.#home]);
    await client.clunk(root);
    const first = this.#dirs.length === 0;
    if (first) this.#dirs = Array.from({ length: directories }, (_, i) => ({ fid: -1, name: `d${i}` }));
    for (const dir of this.#dirs) {
      if (first) await client.mkdir(home, dir.name);
      dir.fid = await client.walk(home, [dir.name]);
    }
    await client.clunk(home);
  }

  /** Disconnects at once. */
  cut(): void {
    this.#client?.wire.socket.destroy();
    this.#isCut = true;
  }

  async close(): Promise<void> {
    await this.#client?.close();
    this.#client = undefined;
  }

  /** One operation with its checks. Throws if a reply is wrong. */
  async step(): Promise<void> {
    try {
      const names = [...this.#entries.keys()];
      const name = this.#random.pick(names);
      const entry = name === undefined ? undefined : this.#entries.get(name)!;
      const crowded = names.length > entriesMax;
      if (name === undefined || entry === undefined) await this.#create();
      else await this.#pickAct(name, entry, crowded)();
      this.operations++;
      this.#touched = [];
    } catch (error) {
      if (!(error instanceof Disconnected)) throw error;
      await this.#comeBack();
    }
  }

  #pickAct(name: string, entry: Entry, crowded: boolean): () => Promise<void> {
    const isFile = (entry.mode & S_IFMT) === S_IFREG;
    if (crowded) return () => this.#remove(name);
    const acts: (() => Promise<void>)[] = [
      () => this.#create(),
      () => this.#createOther(),
      () => this.#rename(name),
      () => this.#link(name, entry),
      () => this.#remove(name),
      () => this.#compareListing(),
      () => this.#renameDirectory(),
      () => this.#compare(name, entry),
      () => this.#compare(name, entry),
      () => this.#compare(name, entry),
    ];
    if (isFile) {
      acts.push(
        () => this.#overwrite(name, entry),
        () => this.#overwrite(name, entry),
        () => this.#truncate(name, entry),
        () => this.#setattr(name, entry),
        () => this.#setxattr(name, entry),
        () => this.#useUnlinked(name, entry),
      );
    }
    return this.#random.pick(acts);
  }

  async #comeBack(): Promise<void> {
    this.cuts++;
    for (;;) {
      this.#client?.wire.socket.destroy();
      this.#isCut = false;
      try {
        return await this.#giveUpTouched();
      } catch (error) {
        // Once more, and before it was back.
        if (!(error instanceof Disconnected)) throw error;
      }
    }
  }

  async #giveUpTouched(): Promise<void> {
    const lost = new Set(this.#touched.flatMap(name => [name, ...(this.#entries.get(name)?.names ?? [])]));
    this.#touched = [...lost];
    await this.#client?.wire.closed;
    await new Promise(resolve => setTimeout(resolve, afterCutMs));
    await this.start();
    for (const name of lost) {
      this.#entries.delete(name);
      this.#lost.add(name);
      const [fid, last] = this.#place(name);
      await this.#client!.unlinkat(fid, last).catch(unless(ENOENT));
    }
    this.#touched = [];
  }

  #place(name: string): [fid: number, last: string] {
    const [dir, last] = name.split('/') as [string, string];
    return [this.#dirs[Number(dir)]!.fid, last];
  }

  #fresh(): string {
    return `${this.#random.below(directories)}/${this.#names++}`;
  }

  async #with<T>(name: string, act: (client: Client, fid: number) => Promise<T>): Promise<T> {
    const client = this.#client!;
    const [dir, last] = this.#place(name);
    const fid = await client.walk(dir, [last]);
    const result = await act(client, fid);
    await client.clunk(fid);
    return result;
  }

  #add(name: string, mode: number, content: Buffer = Buffer.alloc(0), target = ''): void {
    const entry = { mode, uid: 0, gid: 7, content, target, xattrs: new Map(), names: new Set([name]) };
    this.#entries.set(name, entry);
  }

  async #create(): Promise<void> {
    const client = this.#client!;
    const name = this.#fresh();
    this.#touched = [name];
    const [dir, last] = this.#place(name);
    const mode = this.#random.below(0o1000);
    const content = this.#random.bytes(this.#random.below(fileBytesMax));
    const fid = await client.walk(dir);
    await client.lcreate(fid, last, O_RDWR, mode, 7);
    await client.writeAll(fid, content);
    if (this.#random.oneIn(8)) await client.fsync(fid);
    await client.clunk(fid);
    this.#add(name, S_IFREG | mode, content);
  }

  async #createOther(): Promise<void> {
    const client = this.#client!;
    const name = this.#fresh();
    this.#touched = [name];
    const [dir, last] = this.#place(name);
    const type = this.#random.pick([S_IFLNK, S_IFIFO, S_IFCHR, S_IFBLK]);
    if (type === S_IFLNK) {
      const target = `../${'x'.repeat(this.#random.below(200))}`;
      await client.symlink(dir, last, target, 7);
      this.#add(name, S_IFLNK | 0o777, undefined, target);
    } else {
      const mode = type | this.#random.below(0o1000);
      await client.mknod(dir, last, mode, type === S_IFIFO ? 0 : 1, type === S_IFIFO ? 0 : 3, 7);
      this.#add(name, mode);
    }
  }

  async #rename(name: string): Promise<void> {
    const others = [...this.#entries.keys()];
    const to = this.#random.oneIn(3) ? this.#random.pick(others) : this.#fresh();
    this.#touched = [name, to];
    const [fromDir, from] = this.#place(name);
    const [toDir, last] = this.#place(to);
    await this.#client!.renameat(fromDir, from, toDir, last);
    const entry = this.#entries.get(name)!;
    // rename(2): no effect between two names of one object.
    if (this.#entries.get(to) === entry) return;
    this.#forget(to);
    this.#forget(name);
    entry.names.add(to);
    this.#entries.set(to, entry);
  }

  #forget(name: string): void {
    this.#entries.get(name)?.names.delete(name);
    this.#entries.delete(name);
  }

  async #link(name: string, entry: Entry): Promise<void> {
    const to = this.#fresh();
    this.#touched = [name, to];
    const [dir, last] = this.#place(to);
    await this.#with(name, (client, fid) => client.link(dir, fid, last));
    entry.names.add(to);
    this.#entries.set(to, entry);
  }

  async #remove(name: string): Promise<void> {
    this.#touched = [name];
    const [dir, last] = this.#place(name);
    await this.#client!.unlinkat(dir, last);
    this.#forget(name);
  }

  /** Renames all directories; fids on them stay valid. */
  async #renameDirectory(): Promise<void> {
    const client = this.#client!;
    const root = await client.attach(this.#aname, 0);
    const home = await client.walk(root, [this.#home]);
    const dir = this.#random.pick(this.#dirs);
    const aside = `aside${this.#names++}`;
    try {
      await client.renameat(home, dir.name, home, aside);
      await client.renameat(home, aside, home, dir.name);
    } catch (error) {
      if (error instanceof Disconnected) await this.#restore(dir.name, aside);
      throw error;
    }
    await client.clunk(root, home);
  }

  /** The connection was cut between two renames. */
  async #restore(name: string, aside: string): Promise<void> {
    await new Promise(resolve => setTimeout(resolve, afterCutMs));
    const client = await this.#connect();
    const home = await client.walk(await client.attach(this.#aname, 0), [this.#home]);
    await client.renameat(home, aside, home, name).catch(unless(ENOENT));
    await client.close();
  }

  async #overwrite(name: string, entry: Entry): Promise<void> {
    this.#touched = [name];
    const offset = this.#random.below(fileBytesMax);
    const bytes = this.#random.bytes(1 + this.#random.below(fileBytesMax / 4));
    await this.#with(name, async (client, fid) => {
      await client.lopen(fid, O_RDWR);
      await client.writeAll(fid, bytes, offset);
      if (this.#random.oneIn(8)) await client.fsync(fid);
    });
    const content = Buffer.alloc(Math.max(entry.content.length, offset + bytes.length));
    entry.content.copy(content);
    bytes.copy(content, offset);
    entry.content = content;
  }

  async #truncate(name: string, entry: Entry): Promise<void> {
    this.#touched = [name];
    const size = this.#random.below(fileBytesMax);
    await this.#with(name, (client, fid) => client.setattr(fid, { size }));
    const content = Buffer.alloc(size);
    entry.content.copy(content);
    entry.content = content;
  }

  async #setattr(name: string, entry: Entry): Promise<void> {
    this.#touched = [name];
    const [mode, uid, gid] = [0o1000, 70_000, 70_000].map(bound => this.#random.below(bound));
    await this.#with(name, (client, fid) => client.setattr(fid, { mode, uid, gid }));
    entry.mode = S_IFREG | mode!;
    entry.uid = uid!;
    entry.gid = gid!;
  }

  async #setxattr(name: string, entry: Entry): Promise<void> {
    this.#touched = [name];
    const key = `user.${this.#random.below(3)}`;
    const value = this.#random.bytes(1 + this.#random.below(300));
    await this.#with(name, (client, fid) => client.setxattr(fid, key, value));
    entry.xattrs.set(key, value);
  }

  /** An open file stays usable after its last name is removed. */
  async #useUnlinked(name: string, entry: Entry): Promise<void> {
    this.#touched = [name];
    const [dir, last] = this.#place(name);
    await this.#with(name, async (client, fid) => {
      await client.lopen(fid, 0);
      await client.unlinkat(dir, last);
      this.#forget(name);
      same(`unlinked ${name}`, await client.readAll(fid), entry.content);
    });
  }

  async #compare(name: string, entry: Entry): Promise<void> {
    this.#touched = [];
    await this.#with(name, async (client, fid) => {
      const { mode, uid, gid, nlink, size } = await client.getattr(fid);
      const isFile = (entry.mode & S_IFMT) === S_IFREG;
      const wanted = [entry.mode, entry.uid, entry.gid, entry.names.size];
      same(`attributes of ${name}`, [mode, uid, gid, Number(nlink)], wanted);
      if (entry.target !== '') same(`target of ${name}`, await client.readlink(fid), entry.target);
      if (!isFile) return;
      same(`size of ${name}`, Number(size), entry.content.length);
      for (const [key, value] of entry.xattrs) {
        same(`${key} of ${name}`, await client.getxattr(fid, key), value);
      }
      await client.lopen(fid, 0);
      same(`content of ${name}`, await client.readAll(fid), entry.content);
    });
    this.compared++;
  }

  async #compareListing(): Promise<void> {
    this.#touched = [];
    const client = this.#client!;
    const index = this.#random.below(directories);
    const fid = await client.walk(this.#dirs[index]!.fid);
    await client.lopen(fid, 0);
    const listed = (await client.readdir(fid, 4096)).map(({ name }) => `${index}/${name}`);
    await client.clunk(fid);
    const there = listed.filter(name => !/\/\.\.?$/.test(name) && !this.#lost.has(name)).sort();
    same(
      `listing ${index}`,
      there,
      [...this.#entries.keys()].filter(name => name.startsWith(`${index}/`)).sort(),
    );
  }

  /** Compares everything after the last step; reconnects if needed. */
  async compareAll(): Promise<void> {
    if (this.#isCut) await this.#comeBack();
    for (const [name, entry] of this.#entries) await this.#compare(name, entry);
  }
}

function unless(expected: unknown): (error: unknown) => void {
  return error => {
    if (error !== expected) throw error;
  };
}

function same(what: string, is: unknown, wanted: unknown): void {
  const equal =
    is instanceof Buffer && wanted instanceof Buffer
      ? is.equals(wanted)
      : JSON.stringify(is) === JSON.stringify(wanted);
  if (equal) return;
  const show = (value: unknown) =>
    value instanceof Buffer ? describe(value, is, wanted) : JSON.stringify(value);
  throw new Error(`${what}: ${show(is)} instead of ${show(wanted)}`);
}

function describe(bytes: Buffer, one: unknown, other: unknown): string {
  const [a, b] = [one as Buffer, other as Buffer];
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) at++;
  return `${bytes.length} bytes (…${bytes.subarray(at, at + 16).toString('hex')} at ${at})`;
}
