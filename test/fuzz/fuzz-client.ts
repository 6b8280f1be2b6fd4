import type { Errno } from '../../src/base/errno.ts';
import { silent } from '../../src/base/log.ts';
import { decodeReply, encodeRequest, frameTag } from '../../src/protocol/codec.ts';
import type { Draft, Op, RMessage } from '../../src/protocol/operations.ts';
import type { ExportLookup } from '../../src/session/attachment.ts';
import type { TransportPort } from '../../src/session/exchange.ts';
import { Session } from '../../src/session/session.ts';
import { StrictExchange } from '../support/strict-exchange.ts';
import { assert } from './choices.ts';

/** A request that was sent, and its outcome. */
export interface Asking {
  readonly tag: number;
  readonly frame: Buffer;
  state: 'waiting' | 'answered' | 'dropped';
  reply: Buffer | undefined;
}

const microtasksMax = 50;
const waitMsMax = 20_000;

/** A client that calls a session directly, without a transport. */
export class FuzzClient implements TransportPort {
  readonly peer = { label: 'fuzz' };
  readonly session: Session;
  /** In the order of their replies or drops. */
  readonly over: Asking[] = [];
  readonly errors: string[] = [];
  hungUp: string | undefined;

  /** A traced session uses only the generic path. */
  constructor(exports: ExportLookup, traced = false) {
    const error = (text: string) => void this.errors.push(text);
    const log = { ...silent, error, isLevelEnabled: () => traced };
    this.session = new Session({ exports, transport: this, log });
  }

  hangUp(reason: string): void {
    this.hungUp = reason;
  }
  resume(): void {}

  ask(frame: Buffer): Asking {
    const asking: Asking = { tag: frameTag(frame), frame, state: 'waiting', reply: undefined };
    const exchange = new StrictExchange(frame, reply => {
      asking.state = reply ? 'answered' : 'dropped';
      asking.reply = reply;
      this.over.push(asking);
    });
    this.session.receive(exchange);
    exchange.endCallback();
    return asking;
  }

  /** Sends a request and waits for the reply. */
  async request(frame: Buffer): Promise<Buffer> {
    const asking = this.ask(frame);
    for (let i = 0; i < microtasksMax && asking.state === 'waiting'; i++) await Promise.resolve();
    const end = performance.now() + waitMsMax;
    while (asking.state === 'waiting' && performance.now() < end)
      await new Promise(resolve => setImmediate(resolve));
    assert(this.errors.length === 0, () => `a bug was logged: ${this.errors[0]}`);
    assert(asking.reply !== undefined, () => `no reply: the request was ${asking.state} (${this.hungUp})`);
    return asking.reply!;
  }

  async call<O extends Op>(op: O, asked: Draft<O>, tag: number): Promise<RMessage<O> | Errno> {
    return decodeReply(op, await this.request(encodeRequest(op, tag, asked)));
  }

  get fids(): number {
    return this.session.counts().fids;
  }

  /** Closes the session; it must hold nothing afterwards. */
  async close(): Promise<void> {
    await this.session.close();
    const left = Object.entries(this.session.counts()).filter(([, count]) => count !== 0);
    assert(left.length === 0, () => `left after the end: ${JSON.stringify(left)}`);
    assert(this.errors.length === 0, () => `a bug was logged: ${this.errors[0]}`);
  }
}
