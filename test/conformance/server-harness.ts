import { afterAll, afterEach, beforeAll, describe, expect, vi } from 'vitest';
import { type Backend, backends } from '../support/backends.ts';
import { descriptors, type Serving } from '../support/serve.ts';
import { RawConnection } from './raw-connection.ts';
import { TestClient } from './test-client.ts';

export interface Place {
  readonly c: TestClient;
  /** A fid of an empty directory that everybody may write to. */
  readonly dir: number;
  /** Its name in the export's root. */
  readonly name: string;
}

/** Waits until the expectation holds. */
export function soon(expectation: () => unknown): Promise<unknown> {
  return vi.waitFor(expectation, { timeout: 5000, interval: 5 });
}

/** A server and what talks to it, for the tests of one group. Connections end with the test that made them. */
export class ServerHarness {
  readonly backend: Backend;
  #serving: Serving | undefined;
  #base = 0;
  #places = 0;
  readonly #ends: (() => Promise<unknown>)[] = [];

  constructor(backend: Backend) {
    this.backend = backend;
  }

  /** What a Tlock says besides its fid. */
  readonly lockFields = { type: 1, flags: 0, start: 0, length: 0, proc_id: 1, client_id: 'vm' };

  get serving(): Serving {
    return this.#serving!;
  }

  get socket(): string {
    return this.serving.socket;
  }

  /** The path on the host of a name in the export. */
  path(...names: string[]): string {
    return [this.serving.directory, ...names].join('/');
  }

  async open(): Promise<void> {
    this.#serving = await this.backend.serve();
    // Once through everything that is opened when it is first needed.
    const { c, dir } = await this.begin();
    const fid = await c.create(dir, 'f');
    await c.call('fsync', { fid, datasync: 0 });
    await this.endAll();
    this.#base = descriptors();
  }

  async connect(options: { aname?: string; n_uname?: number; msize?: number } = {}): Promise<TestClient> {
    const client = await TestClient.begin({ path: this.socket }, options);
    this.#ends.push(() => client.close());
    return client;
  }

  /** A connection of this user, and a directory of its own. */
  async begin(n_uname = 0, msize = 131_072): Promise<Place> {
    const root = await this.connect();
    const name = `place-${this.#places++}`;
    await root.mkdir(0, name, 0o777);
    this.serving.prepare?.(name);
    const c = await this.connect({ n_uname, msize });
    return { c, dir: await c.walk(0, name), name };
  }

  /** A raw connection with a version agreed and fid 0 attached. */
  async wire(): Promise<RawConnection> {
    const wire = await RawConnection.begin(this.socket);
    this.#ends.push(() => wire.end());
    return wire;
  }

  /** A raw connection on which nothing was said yet. */
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

  /** How often to do what is done so often where that does not take long. */
  work(times: number): number {
    return Math.ceil(times * this.backend.scale);
  }

  pause(ms: number): Promise<void> {
    return new Promise(resolve => setTimeout(resolve, ms));
  }

  /** Waits until the server has no more connections than this. */
  async settle(count: number): Promise<void> {
    await soon(() => expect(this.serving.connections()).toBeLessThanOrEqual(count));
  }

  async endAll(): Promise<void> {
    await Promise.all(this.#ends.splice(0).map(end => end()));
    await this.settle(0);
  }

  /** What every group of tests ends with: nothing is left of what its clients did. */
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
  /** Only for back ends whose files can be seen on the host, or only for those whose files cannot. */
  readonly host?: boolean;
  /** Only for back ends that check permissions themselves. */
  readonly permissions?: true;
}

/** A group of tests for every back end that has what they need. */
export function conform(title: string, tests: (harness: ServerHarness) => void, needs: Needs = {}): void {
  for (const backend of backends) {
    if ((needs.host ?? backend.host) !== backend.host) continue;
    if (needs.permissions && !backend.permissions) continue;
    describe(`${title} (${backend.name})`, () => {
      const harness = new ServerHarness(backend);
      beforeAll(() => harness.open());
      afterEach(() => harness.endAll());
      afterAll(() => harness.leaveNothing());
      tests(harness);
    });
  }
}
