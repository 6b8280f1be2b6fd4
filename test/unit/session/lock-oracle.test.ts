/**
 * Lock table against the kernel: the same random requests to a file through the table and to another file with F_OFD_SETLK, one
 * open file description for each owner. The kernel decides what is granted and what Tgetlock and an outside program find.
 * Waiting requests are retried on the other file in order after every change, as the kernel does.
 */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalOpen } from '#backend/local/open-file.ts';
import { Attr } from '#base/attr.ts';
import { EBADF, Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { inline } from '#host/linux.ts';
import { serverCreds } from '#host/syscalls.ts';
import { LockClient } from '#session/locks/lock-client.ts';
import type { LockRequest } from '#session/locks/lock-request.ts';
import { Random } from '../../stress/random.ts';
import { contextOf } from '../../support/context.ts';
import { TempExport, turns } from './harness.ts';

const seeds = 12;
const steps = 150;
/** Starts of locks; length 0 reaches to the end of the file. */
const starts = 12;
const [READ, WRITE, UNLOCK] = [0, 1, 2];

interface Range {
  readonly type: 0 | 1 | 2;
  readonly start: number;
  readonly length: number;
}

/** A lock owner: a process of a guest with the file open, and its counterpart on the other file. */
interface Owner {
  readonly client: LockClient;
  readonly pid: number;
  readonly through: { readonly file: LocalOpen };
  readonly oracle: number;
}

interface Waiting {
  readonly owner: Owner;
  readonly range: Range;
  readonly request: LockRequest;
}

/** The two files. */
class Pair {
  readonly tempExport = new TempExport();
  readonly clients = [new LockClient(), new LockClient(), new LockClient()] as const;
  readonly owners: Owner[] = [];
  /** A program of the host, on either file. */
  readonly program: { readonly served: number; readonly oracle: number };
  readonly tree: LocalTree;
  waiting: Waiting[] = [];
  readonly #descriptors: number[] = [];

  private constructor(tempExport: TempExport, tree: LocalTree) {
    this.tempExport = tempExport;
    this.tree = tree;
    this.program = { served: this.#open('served'), oracle: this.#open('oracle') };
  }

  static async make(): Promise<Pair> {
    const tempExport = new TempExport();
    for (const name of ['served', 'oracle']) writeFileSync(tempExport.path(name), 'x');
    const pair = new Pair(tempExport, await tempExport.tree());
    const [a, b, c] = pair.clients;
    for (const [client, pid] of [
      [a, 1],
      [a, 2],
      [b, 1],
      [c, 1],
    ] as const) {
      const through = { file: await pair.#openServed() };
      pair.owners.push({ client, pid, through, oracle: pair.#open('oracle') });
    }
    return pair;
  }

  #open(name: string): number {
    const fd = openSync(this.tempExport.path(name), 'r+');
    this.#descriptors.push(fd);
    return fd;
  }

  async #openServed(): Promise<LocalOpen> {
    const { tree } = this;
    const node = await tree.walk(contextOf(serverCreds), tree.root, nameOf('served'), new Attr());
    if (node instanceof Errno) throw node;
    const actor = contextOf(serverCreds);
    const file = await tree.open(actor, node, { read: true, write: true, truncate: false, sync: 'none' });
    tree.release(node);
    return file;
  }

  async close(): Promise<void> {
    await Promise.all(this.clients.map(client => client.dropAll()));
    expect(this.clients.map(client => client.count)).toEqual([0, 0, 0]);
    for (const { through } of this.owners) this.tree.closeFile(through.file);
    for (const fd of this.#descriptors) closeSync(fd);
    this.tempExport.close();
  }

  ask({ client, pid, through }: Owner, range: Range, block: boolean): LockRequest {
    return client.ask(this.tree, through, range, block, 'vm', pid);
  }

  /** A request that is answered at once, and the grants that follow. */
  async request(owner: Owner, range: Range, block: boolean): Promise<void> {
    const request = this.ask(owner, range, block);
    if (set(owner.oracle, range)) {
      expect(await request.outcome).toBe('granted');
    } else if (block) {
      this.waiting.push({ owner, range, request });
      // It is tried first.
      await turns(1);
    } else {
      expect(await request.outcome).toBe('blocked');
    }
    await this.granted();
  }

  /** Retries waiting requests on the other file until nothing changes; those granted there must be granted here. */
  async granted(): Promise<void> {
    for (let before = -1; before !== this.waiting.length; ) {
      before = this.waiting.length;
      const rest: Waiting[] = [];
      for (const one of this.waiting) {
        if (set(one.owner.oracle, one.range)) expect(await one.request.outcome).toBe('granted');
        else rest.push(one);
      }
      this.waiting = rest;
    }
    expect(this.waiting.some(({ request }) => request.answered)).toBe(false);
  }

  /** Releases the locks of owners by closing their files. */
  async give(owners: readonly Owner[], outcome: 'cancelled' | Errno, drop: () => unknown): Promise<void> {
    const [gone, rest] = [true, false].map(its =>
      this.waiting.filter(one => owners.includes(one.owner) === its),
    );
    const outcomes = gone!.map(({ request }) => request.outcome.catch(error => error));
    this.waiting = rest!;
    await drop();
    for (const one of outcomes) expect(await one).toBe(outcome);
    for (const { oracle } of owners) set(oracle, { type: 2, start: 0, length: 0 });
    await this.granted();
  }

  async cancel(one: Waiting): Promise<void> {
    this.waiting = this.waiting.filter(other => other !== one);
    one.owner.client.cancel(this.tree, one.request);
    expect(await one.request.outcome).toBe('cancelled');
  }

  async test({ client, pid, through, oracle }: Owner, range: Range): Promise<void> {
    const found = await client.test(contextOf(serverCreds), this.tree, through, range, 'vm', pid);
    const expected = conflict(oracle, range);
    expect(found !== undefined).toBe(expected !== undefined);
    // The kernel may name another of several conflicting locks, but the named one exists.
    if (found) expect(conflict(oracle, { ...range, start: found.start, length: found.length })).toBeDefined();
  }

  /** For each byte, an outside program finds the same conflicts on both files. */
  compare(): void {
    for (let start = 0; start <= starts + 6; start++) {
      for (const type of [READ, WRITE] as (0 | 1)[]) {
        const [here, there] = [this.program.served, this.program.oracle].map(fd =>
          conflict(fd, { type, start, length: 1 }),
        );
        expect([start, type, here?.type]).toEqual([start, type, there?.type]);
      }
    }
  }
}

/** F_OFD_SETLK. */
function set(fd: number, { type, start, length }: Range): boolean {
  return inline.lock(serverCreds, fd, type, start, length) as boolean;
}

/** F_OFD_GETLK. */
function conflict(fd: number, { type, start, length }: Range): { readonly type: number } | undefined {
  return inline.testLock(serverCreds, fd, type, start, length) as { readonly type: number } | undefined;
}

async function step(pair: Pair, random: Random): Promise<void> {
  const range = (): Range => ({
    type: random.pick([READ, READ, WRITE, WRITE, UNLOCK, UNLOCK, UNLOCK]) as 0 | 1 | 2,
    start: random.below(starts),
    length: random.below(6),
  });
  const owner = random.pick(pair.owners);
  const [act] = [random.below(24)];
  if (act < 3) {
    const outside = range();
    expect(set(pair.program.served, outside)).toBe(set(pair.program.oracle, outside));
    await pair.granted();
  } else if (act < 4) {
    await pair.give([owner], EBADF, () => owner.client.dropThrough(pair.tree, owner.through));
  } else if (act < 5) {
    const own = pair.owners.filter(one => one.client === owner.client);
    await pair.give(own, 'cancelled', () => owner.client.dropAll());
  } else if (act < 7 && pair.waiting.length > 0) {
    await pair.cancel(random.pick(pair.waiting));
  } else if (act < 10) {
    const { type, ...rest } = range();
    await pair.test(owner, { type: type === 2 ? 1 : type, ...rest });
  } else {
    await pair.request(owner, range(), random.oneIn(3));
  }
}

it.each(Array.from({ length: seeds }, (_, i) => i + 1))(
  'locks are those of the kernel, seed %i',
  async seed => {
    const random = new Random(seed);
    const pair = await Pair.make();
    try {
      for (let i = 0; i < steps; i++) {
        await step(pair, random);
        pair.compare();
        // Nothing is granted late.
        if (i % 50 === 49) await sleep(30);
        expect(pair.waiting.some(({ request }) => request.answered)).toBe(false);
      }
    } finally {
      await pair.close();
    }
  },
);
