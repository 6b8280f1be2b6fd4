import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { Errno } from '#base/errno.ts';
import { noId } from '#base/ids.ts';
import type { Logger } from '#base/log.ts';
import { decodeReply, encodeRequest, frameTag } from '#protocol/codec.ts';
import { dialect, NOFID, NOTAG } from '#protocol/constants.ts';
import { type Op, operations, type RMessage, type TMessage } from '#protocol/operations.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import type { TransportPort } from '#session/exchange.ts';
import { Session } from '#session/session.ts';
import { StrictExchange } from '../../support/strict-exchange.ts';

/** A temporary host directory and trees on it; `close` removes both. */
export class TempExport {
  readonly directory = mkdtempSync(join(tmpdir(), 'ninepd-session-'));
  readonly descriptors = new FdBudget(1000);
  readonly #trees: LocalTree[] = [];

  /** A new tree, which is a separate host program to the others. */
  async tree(): Promise<LocalTree> {
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    const tree = await LocalTree.open(this.directory, {
      descriptors: this.descriptors,
      model,
    });
    this.#trees.push(tree);
    return tree;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  close(): void {
    for (const tree of this.#trees) tree.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Blocks calls of a tree while it is closed. */
export class Barrier {
  #open: () => void = () => undefined;
  #closed: Promise<void> | undefined;
  waiting = 0;

  close(): void {
    this.#closed = new Promise(resolve => {
      this.#open = resolve;
    });
  }

  open(): void {
    this.#closed = undefined;
    this.#open();
  }

  async pass(): Promise<void> {
    this.waiting++;
    await this.#closed;
    this.waiting--;
  }
}

/** The synchronous calls, which a tree that always blocks does not have. */
export const nowCalls: ReadonlySet<string | symbol> = new Set(['readNow', 'writeNow', 'readdirNow']);

/** A tree on a file system that blocks: each of these calls waits until the barrier is open. */
export function waiting(tree: Tree, barrier: Barrier, calls: readonly (keyof Tree)[]): Tree {
  return new Proxy(tree, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property);
      if (typeof value !== 'function') return value;
      const call = value.bind(target) as (...args: unknown[]) => unknown;
      if (nowCalls.has(property)) return undefined;
      if (!calls.includes(property as keyof Tree)) return call;
      return async (...args: unknown[]) => {
        await barrier.pass();
        return call(...args);
      };
    },
  });
}

interface Reply {
  readonly tag: number;
  readonly frame: Buffer;
}

/** Timeout in ms of a request; generous, for a busy machine. */
const replyMsMax = 20_000;

/** A session with a test client, without a transport. */
export class SessionHarness implements TransportPort {
  readonly peer = { label: 'test' };
  readonly session: Session;
  readonly replies: Reply[] = [];
  readonly errors: string[] = [];
  hungUp: string | undefined;
  resumed = 0;
  dropped = 0;
  /** Work deferred to the end of the batch of requests; undefined outside of one. */
  deferred: (() => void)[] | undefined;
  #tag = 0;

  /** `traced`: log level trace, so that the session uses only the generic path. */
  constructor(tree: Tree, { readonly = false, traced = false } = {}) {
    const log: Logger = {
      trace: () => undefined,
      debug: () => undefined,
      info: () => undefined,
      warn: () => undefined,
      error: text => void this.errors.push(text),
      isLevelEnabled: level => level !== 'trace' || traced,
    };
    const exports = { find: () => ({ name: 'test', tree, readonly }) };
    this.session = new Session({ exports, transport: this, log });
  }

  hangUp(reason: string): void {
    this.hungUp = reason;
  }

  resume(): void {
    this.resumed++;
  }

  /** Whether the session takes a request now. */
  get takes(): boolean {
    return this.session.takes(operations.getattr.type, 0);
  }

  /** Negotiates the version and attaches the root as fid 0. */
  async begin(msize = 65536): Promise<this> {
    await this.request('version', { msize, version: dialect });
    await this.request('attach', { fid: 0, afid: NOFID, uname: '', aname: '', n_uname: noId });
    return this;
  }

  send<O extends Op>(op: O, tag: number, request: TMessage<O>): void {
    this.sendFrame(encodeRequest(op, tag, request));
  }

  sendFrame(frame: Buffer): void {
    const exchange = new StrictExchange(
      frame,
      reply => {
        if (reply) this.replies.push({ tag: frameTag(reply), frame: reply });
        else this.dropped++;
      },
      act => {
        this.deferred?.push(act);
        return this.deferred !== undefined;
      },
    );
    this.session.receive(exchange);
    exchange.endCallback();
  }

  /** Sends requests that arrive together, as from one read of a socket. */
  batch<T>(send: () => T): T {
    const deferred: (() => void)[] = [];
    this.deferred = deferred;
    const sent = send();
    this.deferred = undefined;
    for (const act of deferred) act();
    return sent;
  }

  /** Removes the replies so far; returns their tags in order. */
  takeTags(): number[] {
    return this.replies.splice(0).map(reply => reply.tag);
  }

  /** Sends a request and waits for its reply; throws the Errno of an Rlerror. */
  async request<O extends Op>(op: O, request: TMessage<O>): Promise<RMessage<O>> {
    const tag = op === 'version' ? NOTAG : 1000 + (this.#tag++ % 10_000);
    this.send(op, tag, request);
    for (const end = Date.now() + replyMsMax; Date.now() < end; ) {
      const at = this.replies.findIndex(reply => reply.tag === tag);
      if (at >= 0) {
        const [{ frame }] = this.replies.splice(at, 1) as [Reply];
        const reply = decodeReply(op, frame);
        if (reply instanceof Errno) throw reply;
        return reply;
      }
      await new Promise(resolve => setImmediate(resolve));
    }
    throw new Error(`no reply to ${op}`);
  }

  async errno<O extends Op>(op: O, request: TMessage<O>): Promise<string> {
    try {
      await this.request(op, request);
      return 'none';
    } catch (error) {
      if (error instanceof Errno) return error.name;
      throw error;
    }
  }
}

/** Runs `count` iterations of the event loop. */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(resolve => setImmediate(resolve));
}

/** Runs the event loop until `reached` returns true; fails after 20 s. */
export async function until(reached: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !reached(); ) {
    if (Date.now() > end) throw new Error('the condition was not reached within 20 s');
    await new Promise(resolve => setTimeout(resolve, 1));
  }
}
