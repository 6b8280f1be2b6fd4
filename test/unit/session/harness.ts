import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { Errno } from '#base/errno.ts';
import type { Logger } from '#base/log.ts';
import { asOwned, type OwnedSegments, type Segments } from '#base/owned.ts';
import { decodeReply, encodeRequest, frameTag } from '#protocol/codec.ts';
import { dialect, NOFID, NONUNAME, NOTAG, writeHeadBytes } from '#protocol/constants.ts';
import { type Op, operations, type RMessage, type TMessage } from '#protocol/operations.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { type DetachedExchange, replyHeadBytesMax, type TransportPort } from '#session/exchange.ts';
import { Session } from '#session/session.ts';

/** A directory of the host and trees on it, all gone after `close`. */
export class TempExport {
  readonly directory = mkdtempSync(join(tmpdir(), 'ninepd-session-'));
  readonly descriptors = new FdBudget(1000);
  readonly #trees: LocalTree[] = [];

  /** A tree of its own: for the others, a program outside. */
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

/** Holds back the answers of a tree that has begun to wait, until it is let go on. */
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

/** What a tree leaves out that always waits. */
export const nowCalls: ReadonlySet<string | symbol> = new Set(['readNow', 'writeNow', 'readdirNow']);

/** The same tree on a file system that makes everybody wait: each of these calls is made when the gate is open. */
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

/** On a busy machine. */
const replyMsMax = 20_000;

/** A session and a client that speaks with it without any transport. */
export class SessionHarness implements TransportPort {
  readonly peer = { label: 'test' };
  readonly session: Session;
  readonly replies: Reply[] = [];
  readonly errors: string[] = [];
  hungUp: string | undefined;
  resumed = 0;
  dropped = 0;
  #tag = 0;

  /** Traced, it answers every message by the table. */
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

  /** Whether a transport would hand over a request now. */
  get takes(): boolean {
    return this.session.takes(operations.getattr.type, 0);
  }

  /** With a version agreed on and the root as fid 0. */
  async begin(msize = 65536): Promise<this> {
    await this.request('version', { msize, version: dialect });
    await this.request('attach', { fid: 0, afid: NOFID, uname: '', aname: '', n_uname: NONUNAME });
    return this;
  }

  say<O extends Op>(op: O, tag: number, request: TMessage<O>): void {
    this.sayFrame(encodeRequest(op, tag, request));
  }

  sayFrame(frame: Buffer): void {
    const exchange = new Memory(frame, this);
    this.session.receive(exchange);
    exchange.end();
  }

  /** Tags of the replies so far, in order; takes them. */
  takeTags(): number[] {
    return this.replies.splice(0).map(reply => reply.tag);
  }

  /** Says it and waits for the reply; throws the Errno of an Rlerror. */
  async request<O extends Op>(op: O, request: TMessage<O>): Promise<RMessage<O>> {
    const tag = op === 'version' ? NOTAG : 1000 + (this.#tag++ % 10_000);
    this.say(op, tag, request);
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

/** What is asked and answered in plain memory. */
class Memory implements DetachedExchange {
  readonly head: Buffer;
  readonly from = 0;
  readonly to: number;
  readonly payload: OwnedSegments;
  out = Buffer.alloc(replyHeadBytesMax);
  readonly at = 0;
  readonly #harness: SessionHarness;
  #answered = false;
  #kept = false;

  constructor(frame: Buffer, harness: SessionHarness) {
    const isWrite = frame[4] === operations.write.type;
    this.head = isWrite ? frame.subarray(0, writeHeadBytes) : frame;
    this.to = this.head.length;
    this.payload = isWrite ? [asOwned(frame.subarray(writeHeadBytes))] : [];
    this.#harness = harness;
  }

  reserveData(count: number): Segments {
    this.out = Buffer.alloc(Math.max(replyHeadBytesMax, 11 + count));
    return [this.out.subarray(11, 11 + count)];
  }

  commit(headBytes: number, dataBytes: number): void {
    this.#answer();
    const frame = this.out.subarray(0, headBytes + dataBytes);
    if (frame.readUInt32LE(0) !== frame.length) throw new Error('the size is not that of the reply');
    this.#harness.replies.push({ tag: frameTag(frame), frame });
  }

  drop(): void {
    this.#answer();
    this.#harness.dropped++;
  }

  /** Memory of a request that was not kept is used for something else. */
  end(): void {
    if (this.#kept) return;
    this.head.fill(0xdb);
    for (const segment of this.payload) segment.fill(0xdb);
  }

  detach(): DetachedExchange {
    this.#kept = true;
    return this;
  }

  #answer(): void {
    if (this.#answered) throw new Error('answered twice');
    this.#answered = true;
  }
}

/** Lets everything that needs no more than turns of the event loop happen. */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(resolve => setImmediate(resolve));
}

/** Lets the event loop go on until `reached` is true. */
export async function until(reached: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !reached(); ) {
    if (Date.now() > end) throw new Error('what was waited for did not happen within 20 s');
    await new Promise(resolve => setTimeout(resolve, 1));
  }
}
