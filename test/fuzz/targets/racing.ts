/**
 * Requests of several sessions that wait for each other, for delayed calls of the tree and for locks, with flushes, versions
 * and ends of sessions in between. Every request is answered exactly once or dropped, and nothing leaks.
 */

import { MemoryTree } from '../../../src/backend/memory/memory-tree.ts';
import type { Tree } from '../../../src/backend/tree.ts';
import { decodeReply, encodeRequest, frameType } from '../../../src/protocol/codec.ts';
import { NOTAG } from '../../../src/protocol/constants.ts';
import { type Op, operations } from '../../../src/protocol/operations.ts';
import { heldIn } from '../../support/serve.ts';
import { assert, Choices } from '../choices.ts';
import { type Asking, FuzzClient } from '../fuzz-client.ts';
import { Files, Refused } from '../model/nodes.ts';
import { answers } from '../model/replies.ts';
import { ModelSession } from '../model/session.ts';
import { anyRequest, type Request } from '../requests.ts';

const Rflush = operations.flush.type + 1;
const sessionsMax = 3;
const requestsMax = 200;
/** Small, so that it is sometimes full. */
const treeBytesMax = 64 * 1024;

const modelOptions = {
  setGidInherits: false,
  xattrNames: ['user.a', 'user.b', '', 'security.s', 'none'],
  users: [0, 1000],
  directorySize: undefined,
};

/** Calls that never wait. */
const atOnce: ReadonlySet<string | symbol> = new Set([
  'hold',
  'release',
  'closeFile',
  'closeDir',
  'forgetLocks',
  'close',
]);

/** Calls that may return undefined because they would wait. */
const now: ReadonlySet<string | symbol> = new Set(['readNow', 'writeNow', 'readdirNow']);

/** A tree that delays some of its calls, or their results, until they are released. */
class SlowTree {
  readonly tree: Tree;
  /** Whether calls are delayed before or after they are made. */
  slow: 'no' | 'before' | 'after' = 'no';
  readonly waiting: (() => void)[] = [];

  constructor(tree: Tree) {
    this.tree = new Proxy(tree, { get: (target, property) => this.#get(target, property) });
  }

  #get(target: Tree, property: string | symbol): unknown {
    const value: unknown = Reflect.get(target, property);
    if (typeof value !== 'function') return value;
    const call = value.bind(target) as (...args: unknown[]) => unknown;
    if (atOnce.has(property)) return call;
    // While calls are delayed, the *Now methods return undefined.
    if (now.has(property)) return (...args: unknown[]) => (this.slow === 'no' ? call(...args) : undefined);
    return (...args: unknown[]) => {
      const { slow } = this;
      return slow === 'no' ? call(...args) : this.#later(slow, () => call(...args));
    };
  }

  async #later(slow: 'before' | 'after', act: () => unknown): Promise<unknown> {
    const pass = () => new Promise<void>(resolve => void this.waiting.push(resolve));
    if (slow === 'before') await pass();
    try {
      return act();
    } finally {
      if (slow === 'after') await pass();
    }
  }
}

interface Flushing {
  readonly flush: Asking;
  readonly old: Asking;
}

/** A client that sends random requests and records their required outcomes. */
class Client {
  readonly client: FuzzClient;
  /** The session state if every request were answered at once: enough to choose meaningful requests. */
  readonly guess: ModelSession;
  readonly #asked: { readonly asking: Asking; readonly op: Op }[] = [];
  readonly #flushes: Flushing[] = [];
  /** Sent before the last Tversion: never answered. */
  #void: Asking[] = [];
  ended = false;
  #reused = false;

  constructor(client: FuzzClient, guess: ModelSession) {
    this.client = client;
    this.guess = guess;
  }

  get waiting(): readonly Asking[] {
    return this.#asked.map(({ asking }) => asking).filter(({ state }) => state === 'waiting');
  }

  say({ op, asked }: Request, tag: number): void {
    const frame = encodeRequest(op, op === 'version' ? NOTAG : tag, asked);
    const before = this.waiting;
    this.#reused ||= before.some(one => one.tag === frame.readUInt16LE(5));
    if (op === 'version' && !this.#reused) this.#void.push(...before);
    const asking = this.client.ask(frame);
    this.#asked.push({ asking, op });
    const old = before.find(one => op === 'flush' && one.tag === (asked as { oldtag: number }).oldtag);
    if (old && old !== asking) this.#flushes.push({ flush: asking, old });
    try {
      if (this.guess.msize > 0 || op === 'version') answers[op]!(this.guess, asked as never);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }

  /** Whether the session has disconnected, as it must when a tag is reused. */
  get brokenOff(): boolean {
    assert(this.client.hungUp === undefined || this.#reused, () => `it hung up: ${this.client.hungUp}`);
    return this.client.hungUp !== undefined;
  }

  async end(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    this.#void.push(...this.waiting);
    await this.client.close();
  }

  check(): void {
    const { over } = this.client;
    for (const { asking, op } of this.#asked) {
      assert(asking.state !== 'waiting', () => `T${op} was neither answered nor dropped`);
      if (!asking.reply) continue;
      assert(asking.reply.readUInt16LE(5) === asking.tag, () => `T${op} was answered with another tag`);
      assert(
        frameType(asking.frame) + 1 === frameType(asking.reply) || frameType(asking.reply) === 7,
        () => `T${op}: no reply to it`,
      );
      decodeReply(op, asking.reply);
    }
    for (const old of this.#void)
      assert(old.reply === undefined, () => 'an answer came after a version or the end');
    // flush(5): a reply precedes its Rflush. A Tflush during a Tversion fails and has no effect.
    for (const { flush, old } of this.#flushes) {
      const isRflush = flush.reply !== undefined && frameType(flush.reply) === Rflush;
      assert(
        !isRflush || !old.reply || over.indexOf(old) < over.indexOf(flush),
        () => 'an answer came after its Rflush',
      );
    }
  }
}

class Race {
  readonly #choices: Choices;
  readonly #slow: SlowTree;
  readonly #clients: readonly Client[];

  constructor(choices: Choices, tree: Tree) {
    this.#choices = choices;
    this.#slow = new SlowTree(tree);
    const exported = { name: 'rw', tree: this.#slow.tree, readonly: false };
    const world = {
      files: new Files(modelOptions, 0o755),
      locks: new Map(),
      exports: new Map([['', false]]),
    };
    this.#clients = Array.from({ length: sessionsMax }, () => {
      const client = new FuzzClient({ find: aname => (aname === '' ? exported : undefined) });
      return new Client(client, new ModelSession(world));
    });
  }

  async #turns(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await Promise.resolve();
  }

  async begin(): Promise<void> {
    for (const client of this.#clients) {
      client.say({ op: 'version', asked: { msize: 8192, version: '9P2000.L' } }, 0);
      client.say({ op: 'attach', asked: { fid: 0, afid: 0xffff_ffff, uname: '', aname: '', n_uname: 0 } }, 1);
      await this.#turns(10);
    }
  }

  async step(): Promise<void> {
    const choices = this.#choices;
    const client = choices.of([...this.#clients, this.#clients[0]!, this.#clients[0]!]);
    const what = choices.below(16);
    if (what === 0) this.#slow.slow = choices.of(['no', 'before', 'after']);
    else if (what < 4) this.#letGo();
    else if (what === 4) await this.#turns(choices.below(20));
    else if (client.ended || client.brokenOff) await this.#endNow(client);
    else if (what === 5 && choices.rarely(8)) await this.#endNow(client);
    else if (what < 8 && client.waiting.length > 0)
      client.say({ op: 'flush', asked: { oldtag: choices.of(client.waiting).tag } }, this.#tag(client));
    else client.say(this.#request(client), this.#tag(client));
  }

  #request(client: Client): Request {
    const request = anyRequest(this.#choices, client.guess);
    if (request.op !== 'lock' || !this.#choices.rarely(2)) return request;
    return { op: 'lock', asked: { ...(request.asked as object), flags: 1 } as Request['asked'] };
  }

  #tag(client: Client): number {
    const used = new Set(client.waiting.map(({ tag }) => tag));
    if (used.size > 0 && this.#choices.rarely(100)) return [...used][0]!;
    for (let tag = this.#choices.below(200); ; tag++) if (!used.has(tag)) return tag;
  }

  #letGo(): void {
    const { waiting } = this.#slow;
    if (waiting.length > 0) waiting.splice(this.#choices.below(waiting.length), 1)[0]!();
  }

  /** Closing a session waits for running requests. */
  async #endNow(client: Client): Promise<void> {
    const ended = client.end();
    await this.#letAllGo();
    await ended;
  }

  async #letAllGo(): Promise<void> {
    this.#slow.slow = 'no';
    for (let idle = 0; idle < 3; ) {
      const waiting = this.#slow.waiting.splice(0);
      for (const resolve of waiting) resolve();
      idle = waiting.length > 0 ? 0 : idle + 1;
      await this.#turns(30);
    }
  }

  async end(): Promise<void> {
    await this.#letAllGo();
    for (const client of this.#clients) {
      void client.brokenOff;
      await client.end();
    }
    for (const client of this.#clients) client.check();
  }
}

export async function fuzz(data: Buffer): Promise<void> {
  const choices = new Choices(data);
  const tree = new MemoryTree({ bytesMax: treeBytesMax });
  const race = new Race(choices, tree);
  await race.begin();
  for (let count = 0; count < requestsMax && !choices.done; count++) await race.step();
  await race.end();
  tree.root.xattrs.free();
  const held = heldIn(tree);
  assert(held.length === 0, () => `left in the tree: ${held.join(', ')}`);
}
