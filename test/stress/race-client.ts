import { S_IFIFO } from '#base/attr.ts';
import { EIO, Errno } from '#base/errno.ts';
import type { Client } from '#client/client.ts';
import type { Random } from './random.ts';

const O_RDWR = 2;
const O_TRUNC = 0o1000;
const swapped = 4;
const fidsHeldMax = 40;

/** A tree outside the exports, which no client may see. */
export interface Canary {
  /** Its path on the host. */
  readonly path: string;
  /** Part of all its contents, attributes and names. */
  readonly secret: string;
  readonly inodes: ReadonlySet<number>;
}

/**
 * A client that uses objects while they are swapped, by names and old fids, with every message. Throws if a reply shows
 * anything of the canary, or an error that no file system returns.
 */
export class RaceClient {
  readonly errors = new Map<string, number>();
  operations = 0;
  readonly #client: Client;
  readonly #root: number;
  readonly #canary: Canary;
  readonly #random: Random;
  readonly #held: number[] = [];

  constructor(client: Client, root: number, canary: Canary, random: Random) {
    this.#client = client;
    this.#root = root;
    this.#canary = canary;
    this.#random = random;
  }

  async run(running: () => boolean): Promise<void> {
    while (running()) {
      try {
        await this.#step();
        this.operations++;
      } catch (error) {
        if (!(error instanceof Errno) || error === EIO) throw error;
        this.errors.set(error.name, (this.errors.get(error.name) ?? 0) + 1);
      }
    }
  }

  #dirName(): string {
    return `d${this.#random.below(swapped)}`;
  }

  /** An existing name, or one that clients create. */
  #fileName(): string {
    const random = this.#random;
    return random.oneIn(2) ? `f${random.below(swapped)}` : random.oneIn(4) ? 'sub' : `new${random.below(12)}`;
  }

  #path(): string[] {
    const canary = this.#canary.path.split('/').slice(1);
    const up = (levels: number) => Array.from({ length: levels }, () => '..');
    return this.#random.pick([
      [this.#dirName(), this.#fileName()],
      [this.#dirName(), this.#fileName()],
      [this.#dirName(), 'sub', '..', this.#fileName()],
      [this.#dirName(), 'inner', 'deep'],
      [this.#dirName(), ...up(3), 'canary', 'secret'],
      [this.#dirName(), 'sub', ...up(12), ...canary].slice(0, 16),
      ['m', 'f0'],
      [this.#dirName()],
    ]);
  }

  /** A new fid, walked from the root or from a held fid. */
  async #fid(): Promise<number> {
    const from = this.#random.oneIn(3) ? this.#random.pick(this.#held) : undefined;
    const path = from === undefined ? this.#path() : this.#random.pick([[], [], ['..'], [this.#fileName()]]);
    return this.#client.walk(from ?? this.#root, path);
  }

  #dir(): Promise<number> {
    return this.#client.walk(this.#root, [this.#dirName(), ...(this.#random.oneIn(4) ? ['sub'] : [])]);
  }

  async #step(): Promise<void> {
    const client = this.#client;
    const random = this.#random;
    const fid = random.oneIn(3) ? await this.#dir() : await this.#fid();
    let gone = false;
    try {
      await this.#look(fid);
      const acts = [
        () => this.#read(fid),
        () => this.#write(fid),
        () => this.#list(fid),
        () => client.lcreate(fid, this.#fileName(), O_RDWR | (random.oneIn(3) ? O_TRUNC : 0), 0o666),
        () => client.mkdir(fid, this.#fileName()),
        () => client.symlink(fid, this.#fileName(), this.#canary.path),
        () => client.mknod(fid, this.#fileName(), S_IFIFO | 0o666),
        () => this.#link(fid),
        () => this.#rename(fid),
        () => client.unlinkat(fid, this.#fileName(), random.oneIn(4) ? 0x200 : 0),
        () => client.readlink(fid),
        () =>
          client.setattr(
            fid,
            random.pick([{ mode: 0o777 }, { uid: 5, gid: 6 }, { size: 3 }, { mtime: 'now' }]),
          ),
        () => client.setxattr(fid, 'user.client', Buffer.from('here')),
        () => this.#xattrs(fid),
        () => {
          gone = true;
          return client.remove(fid);
        },
      ];
      await random.pick(acts)();
    } finally {
      if (!gone) await this.#hold(fid);
    }
  }

  /** Holds a fid and clunks an older one. */
  async #hold(fid: number): Promise<void> {
    this.#held.push(fid);
    if (this.#held.length < fidsHeldMax) return;
    const [old] = this.#held.splice(this.#random.below(this.#held.length), 1);
    await this.#client.clunk(old!);
  }

  async #look(fid: number): Promise<void> {
    const { qid } = await this.#client.getattr(fid);
    if (this.#canary.inodes.has(qid.pathHigh * 2 ** 32 + qid.pathLow))
      throw new Error('a fid leads to the canary');
  }

  #check(what: string, bytes: Buffer | string): void {
    if (bytes.includes(this.#canary.secret)) throw new Error(`${what} of the canary: ${bytes}`);
  }

  async #read(fid: number): Promise<void> {
    await this.#client.lopen(fid, 0);
    this.#check('content', await this.#client.read(fid, 0, 4096));
  }

  async #write(fid: number): Promise<void> {
    await this.#client.lopen(fid, O_RDWR | (this.#random.oneIn(4) ? O_TRUNC : 0));
    this.#check('content', await this.#client.read(fid, 0, 4096));
    await this.#client.write(fid, 0, Buffer.from('inside\n'));
  }

  async #list(fid: number): Promise<void> {
    await this.#client.lopen(fid, 0);
    for (const { name } of await this.#client.readdir(fid)) this.#check('name', name);
  }

  async #link(fid: number): Promise<void> {
    const dir = await this.#dir();
    await this.#client.link(dir, fid, this.#fileName()).finally(() => this.#hold(dir));
  }

  async #rename(fid: number): Promise<void> {
    const dir = await this.#dir();
    await this.#client.renameat(dir, this.#fileName(), fid, this.#fileName()).finally(() => this.#hold(dir));
  }

  async #xattrs(fid: number): Promise<void> {
    this.#check('xattrs', await this.#client.getxattr(fid, ''));
    this.#check('an xattr', await this.#client.getxattr(fid, 'user.canary'));
  }
}
