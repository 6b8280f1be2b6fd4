import { afterAll, afterEach, beforeAll, describe, expect, vi } from 'vitest';
import { type Backend, backends } from '../support/backends.ts';
import { descriptors, type Serving } from '../support/serve.ts';
import { RawConnection } from './raw-connection.ts';
import { TestClient } from './test-client.ts';

export interface Place {
  readonly c: TestClient;
  /** A fid of an empty directory, writable for everybody. */
  readonly dir: number;
  /** Its name in the export's root. */
  readonly name: string;
}

/** Repeats the expectation until it holds; fails after 5 s. */
export function soon(expectation: () => unknown): Promise<unknown> {
  return vi.waitFor(expectation, { timeout: 5000, interval: 5 });
}

/** A server and its clients, for one group of tests. Connections are closed after the test that opened them. */
export class ServerHarness {
  readonly backend: Backend;
  #serving: Serving | undefined;
  #base = 0;
  #owner = { uid: 0, gid: 0 };
  #places = 0;
  readonly #ends: (() => Promise<unknown>)[] = [];

  constructor(backend: Backend) {
    this.backend = backend;
  }

  /** The fields of a Tlock except `fid`. */
  readonly lockFields = { type: 1, flags: 0, start: 0, length: 0, proc_id: 1, client_id: 'vm' };

  get serving(): Serving {
    return this.#serving!;
  }

  get socket(): string {
    return this.serving.socket;
  }

  /** The host's path of a name in the export. */
  path(...names: string[]): string {
    return [this.serving.directory, ...names].join('/');
  }

  async open(): Promise<void> {
    this.#serving = await this.backend.serve();
    // Causes all lazy initialization that opens descriptors.
    const { c, dir } = await this.begin();
    this.#owner = await c.look(dir);
    const fid = await c.create(dir, 'f');
    await c.call('fsync', { fid, datasync: 0 });
    await this.endAll();
    this.#base = descriptors();
  }

  /** The owner that is shown of what has this owner: the server's where it owns everything. */
  owner(uid: number, gid: number): { uid: number; gid: number } {
    const { uid: serverUid, gid: serverGid } = this.#owner;
    return this.backend.serverOwns ? { uid: serverUid, gid: serverGid } : { uid, gid };
  }

  /** The mode that is shown of a file that was given this one. */
  fileMode(mode: number): number {
    return this.backend.serverOwns ? mode & ~0o6000 : mode;
  }

  async connect(options: { aname?: string; n_uname?: number; msize?: number } = {}): Promise<TestClient> {
    const client = await TestClient.begin({ path: this.socket }, options);
    this.#ends.push(() => client.close());
    return client;
  }

  /** A connection attached as this user, and a new directory. */
  async begin(n_uname = 0, msize = 131_072): Promise<Place> {
    const root = await this.connect();
    const name = `place-${this.#places++}`;
    await root.mkdir(0, name, 0o777);
    this.serving.prepare?.(name);
    const c = await this.connect({ n_uname, msize });
    return { c, dir: await c.walk(0, name), name };
  }

  /** A raw connection after Tversion, with fid 0 attached. */
  async wire(): Promise<RawConnection> {
    const wire = await RawConnection.begin(this.socket);
    this.#ends.push(() => wire.end());
    return wire;
  }

  /** A raw connection before Tversion. */
  async unversionedConnection(): Promise<RawConnection> {
    const wire = await RawConnection.connect(this.socket);
    this.#ends.push(() => wire.end());
    return wire;
  }

  /** Three raw connections with one file open as fid 1, and its directory as fid 2; `a` holds a lock on all of it. */
  async contended(): Promise<{ a: RawConnection; wire: RawConnection; other: RawConnection }> {
    const { c, dir, name } = await this.begin();
    await c.file(dir, 'f', 'content');
    const [a, wire, other] = (await Promise.all([0, 1, 2].map(() => this.wire()))) as [
      RawConnection,
      RawConnection,
      RawConnection,
    ];
    for (const one of [a, wire, other]) {
      await one.request('walk', { fid: 0, newfid: 1, wname: [name, 'f'] });
      await one.request('lopen', { fid: 1, flags: 2 });
      await one.request('walk', { fid: 0, newfid: 2, wname: [name] });
    }
    const { body } = await a.request('lock', { ...this.lockFields, fid: 1 });
    expect(body[0]).toBe(0);
    return { a, wire, other };
  }

  /** Scales a number of repetitions down for slow environments. */
  work(times: number): number {
    return Math.ceil(times * this.backend.scale);
  }

  pause(ms: number): Promise<void> {
    return new Promise(resolve => setTimeout(resolve, ms));
  }

  /** Waits until the server has at most `count` connections. */
  async settle(count: number): Promise<void> {
    await soon(() => expect(this.serving.connections()).toBeLessThanOrEqual(count));
  }

  async endAll(): Promise<void> {
    await Promise.all(this.#ends.splice(0).map(end => end()));
    await this.settle(0);
  }

  /** Ends a group of tests: checks that no fid, lock, descriptor or error is left. */
  async leaveNothing(): Promise<void> {
    try {
      await this.endAll();
      expect(this.serving.errors).toEqual([]);
      await soon(() => expect(this.serving.remains()).toEqual([]));
      await soon(() => expect(descriptors()).toBeLessThanOrEqual(this.#base));
    } finally {
      await this.serving.close();
    }
  }
}

export interface Needs {
  /** True: only backends whose files are visible on the host; false: only the others. */
  readonly host?: boolean;
  /** Only backends that check permissions. */
  readonly permissions?: true;
  /** Only for back ends that have xattrs. */
  readonly xattrs?: true;
}

/** Declares a group of tests for every backend that meets `needs`. */
export function conform(title: string, tests: (harness: ServerHarness) => void, needs: Needs = {}): void {
  for (const backend of backends) {
    if ((needs.host ?? backend.host) !== backend.host) continue;
    if (needs.permissions && !backend.permissions) continue;
    if (needs.xattrs && backend.differs.xattrs === 'none') continue;
    describe(`${title} (${backend.name})`, () => {
      const harness = new ServerHarness(backend);
      beforeAll(() => harness.open());
      afterEach(() => harness.endAll());
      afterAll(() => harness.leaveNothing());
      tests(harness);
    });
  }
}
