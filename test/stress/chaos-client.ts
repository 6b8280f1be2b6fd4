import { EIO, Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { Client } from '#client/client.ts';
import { type Address, Disconnected } from '#client/wire.ts';
import { NOTAG } from '#protocol/constants.ts';
import type { Draft, Op, RMessage } from '#protocol/operations.ts';
import type { Random } from './random.ts';

export const chaosFiles = 6;
export const chaosBlocks = 64;
const blockBytes = 512;
const msize = 65_536;
const anyFids = 12;
/** The fid of file N of this burst. Only the first two requests of the burst create or clunk it. */
const fidOf = (file: number) => 100 + file;
const burst = 40;
/** Most bursts are answered; some end with Tversion or a disconnect. */
const endings = ['answers', 'answers', 'version', 'hang up'] as const;

/** The content of a block: its file and number. */
export function blockOf(file: number, block: number): Buffer {
  return Buffer.from(`${file}/${block};`.padEnd(blockBytes, '.'), 'latin1');
}

interface Request<O extends Op = Op> {
  readonly op: O;
  readonly fields: Draft<O>;
  readonly right?: (reply: RMessage<O>) => boolean;
}

interface State {
  hungUp: boolean;
  fault: unknown;
}

/** The tags of a connection that wait for a reply, and those that must not get one any more. */
class Tags {
  readonly running = new Set<number>();
  readonly #over = new Set<number>();
  late = 0;

  constructor({ wire }: Client) {
    // The client does not reuse a tag before its reply.
    wire.tap = frame => {
      const tag = frame.readUInt16LE(5);
      if (this.#over.has(tag)) this.late++;
      this.running.delete(tag);
      if (tag === NOTAG) {
        for (const one of this.running) this.#over.add(one);
        this.running.clear();
      }
      return false;
    };
  }
}

/** Ties an operation to its fields and its reply. */
function request<O extends Op>(op: O, fields: Draft<O>, right?: (reply: RMessage<O>) => boolean): Request {
  return { op, fields, right } as unknown as Request;
}

/**
 * Sends bursts of requests on a few fids and names that the same burst and other clients open, clunk, rename and remove;
 * flushes some of them; sends Tversion or disconnects in the middle. A reply must be an error or correct, must not come after
 * Rversion, and every request must be answered.
 */
export class ChaosClient {
  answers = 0;
  errors = 0;
  readonly #address: Address;
  readonly #random: Random;

  constructor(address: Address, random: Random) {
    this.#address = address;
    this.#random = random;
  }

  async run(running: () => boolean): Promise<void> {
    while (running()) {
      const client = await Client.connect(this.#address, msize);
      const tags = new Tags(client);
      let going = true;
      for (let left = this.#random.below(8); going && left >= 0 && running(); left--) {
        going = await this.#burst(client, tags);
      }
      await client.close();
    }
  }

  /** False if the connection is closed. */
  async #burst(client: Client, tags: Tags): Promise<boolean> {
    const { wire } = client;
    const ending = this.#random.pick(endings);
    const state: State = { hungUp: false, fault: undefined };
    const waiting: Promise<void>[] = [];
    const send = ({ op, fields, right }: Request) => {
      const tag = wire.freeTag();
      tags.running.add(tag);
      waiting.push(this.#answered(op, wire.request(op, fields, tag), state, right));
      return tag;
    };
    await client.attach('main', 0, 0);
    for (let file = 0; file < chaosFiles; file++) {
      send(request('walk', { fid: 0, newfid: fidOf(file), wname: [nameOf(`file${file}`)] }));
      send(request('lopen', { fid: fidOf(file), flags: 2 }));
    }
    const cutAt = ending === 'answers' ? burst : this.#random.below(burst);
    for (let i = 0; i < cutAt; i++) {
      const tag = send(this.#request());
      if (this.#random.oneIn(4)) waiting.push(this.#answered('flush', wire.flush(tag), state));
      if (this.#random.oneIn(16)) await new Promise(resolve => setImmediate(resolve));
    }
    if (ending === 'hang up') {
      state.hungUp = true;
      wire.socket.destroy();
    }
    if (ending !== 'version') await Promise.all(waiting);
    if (ending !== 'hang up') await wire.request('version', { msize, version: '9P2000.L' }, NOTAG);
    if (state.fault !== undefined) throw state.fault;
    if (tags.late > 0) throw new Error(`${tags.late} answers come after the session was started anew`);
    return ending !== 'hang up';
  }

  /** Keeps the first failure: not every reply is awaited. */
  async #answered<O extends Op>(
    op: O,
    reply: Promise<unknown>,
    state: State,
    right?: (reply: RMessage<O>) => boolean,
  ): Promise<void> {
    try {
      const answer = await reply;
      if (right && !right(answer as RMessage<O>)) throw new Error(`a wrong answer to ${op}: ${show(answer)}`);
      this.answers++;
    } catch (error) {
      if (error instanceof Errno && error !== EIO) this.errors++;
      else if (!(error instanceof Disconnected && state.hungUp)) state.fault ??= error;
    }
  }

  #request(): Request {
    const random = this.#random;
    const fid = 1 + random.below(anyFids);
    const newfid = 1 + random.below(anyFids);
    const file = random.below(chaosFiles);
    const block = random.below(chaosBlocks);
    const offset = block * blockBytes;
    const bytes = blockOf(file, block);
    const spare = () => `spare${random.below(3)}`;
    const dir = `dir${random.below(3)}`;
    const lock = {
      type: random.below(3),
      flags: 0,
      start: 0,
      length: 0,
      proc_id: 1,
      client_id: `${random.below(3)}`,
    };
    const rows: (() => Request)[] = [
      () => request('walk', { fid: 0, newfid, wname: [nameOf(`file${file}`)] }),
      () => request('walk', { fid, newfid, wname: [] }),
      () => request('walk', { fid: 0, newfid, wname: [nameOf(spare())] }),
      () => request('walk', { fid: 0, newfid, wname: [] }),
      () => request('lopen', { fid, flags: random.below(3) }),
      () => request('lopen', { fid, flags: 2 }),
      () => request('read', { fid, offset, count: blockBytes }, ({ data }) => isBlock(data.bytes!, block)),
      () =>
        request('read', { fid: fidOf(file), offset, count: blockBytes }, ({ data }) =>
          bytes.equals(data.bytes!),
        ),
      () =>
        request('read', { fid: fidOf(file), offset, count: blockBytes }, ({ data }) =>
          bytes.equals(data.bytes!),
        ),
      () =>
        request(
          'write',
          { fid: fidOf(file), offset, data: { count: bytes.length, bytes } },
          ({ count }) => count === blockBytes,
        ),
      () => request('clunk', { fid }),
      () => request('clunk', { fid }),
      () => request('getattr', { fid, request_mask: { low: 0x7ff, high: 0 } }),
      () => request('setattr', { ...noChange, fid, valid: 1, mode: 0o644 }),
      () => request('fsync', { fid, datasync: 0 }),
      () => request('lock', { fid, ...lock }, ({ status }) => status <= 2),
      () => request('lcreate', { fid, name: spare(), flags: 2, mode: 0o600, gid: 0 }),
      () => request('mkdir', { dfid: 0, name: dir, mode: 0o700, gid: 0 }),
      () => request('renameat', { olddirfid: 0, oldname: spare(), newdirfid: 0, newname: spare() }),
      () => request('unlinkat', { dirfid: 0, name: spare(), flags: 0 }),
      () => request('unlinkat', { dirfid: 0, name: dir, flags: 0x200 }),
      () => request('link', { dfid: 0, fid, name: spare() }),
      () => request('statfs', { fid }),
    ];
    return random.pick(rows)();
  }
}

const noChange = {
  mode: 0,
  uid: 0,
  gid: 0,
  size: 0,
  atime_sec: 0,
  atime_nsec: 0,
  mtime_sec: 0,
  mtime_nsec: 0,
};

/** A block with that number of any file, or nothing. */
function isBlock(bytes: Uint8Array, block: number): boolean {
  if (bytes.length === 0) return true;
  return Array.from({ length: chaosFiles }, (_, file) => blockOf(file, block)).some(one => one.equals(bytes));
}

function show(answer: unknown): string {
  return JSON.stringify(answer, (_, value) =>
    value instanceof Uint8Array ? `${value.length} bytes` : value,
  );
}
