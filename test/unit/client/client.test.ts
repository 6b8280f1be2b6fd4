import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EBADF, EINTR, ENOENT, EPROTO, type Errno } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { Disconnected } from '#client/wire.ts';
import { decodeRequest, encodeError, encodeReply, frameTag, frameType, requestOp } from '#protocol/codec.ts';
import { NOTAG } from '#protocol/constants.ts';
import { FrameBuffer } from '#protocol/frame-buffer.ts';
import type { Op, RMessage } from '#protocol/operations.ts';

/** A test server whose replies and their order the test controls, including protocol errors. */
class Peer {
  readonly requests: { readonly op: Op; readonly tag: number; readonly request: unknown }[] = [];
  readonly socket: Socket;
  #wake: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    const frames = new FrameBuffer();
    socket.on('error', () => {});
    socket.on('data', chunk =>
      frames.push(
        chunk as Buffer,
        () => 1 << 20,
        frame => this.#receive(Buffer.from(frame)),
      ),
    );
  }

  #receive(frame: Buffer): void {
    const op = requestOp(frameType(frame))!;
    const tag = frameTag(frame);
    if (op === 'version') this.reply('version', tag, { msize: 8192, version: '9P2000.L' });
    else this.requests.push({ op, tag, request: decodeRequest(op, frame) });
    this.#wake();
  }

  /** Waits for `count` requests besides Tversion. */
  async received(count: number): Promise<Peer['requests']> {
    while (this.requests.length < count) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    return this.requests;
  }

  reply<O extends Op>(op: O, tag: number, message: RMessage<O>): void {
    const into = Buffer.alloc(16384);
    this.socket.write(into.subarray(0, encodeReply(op, tag, message, into)));
  }

  refuse(tag: number, errno: Errno): void {
    const into = Buffer.alloc(11);
    this.socket.write(into.subarray(0, encodeError(tag, errno, into)));
  }
}

let dir: string;
let server: Server;
let client: Client;
let peer: Peer;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'client-'));
  const path = join(dir, 'socket');
  server = createServer().listen(path);
  await once(server, 'listening');
  server.once('connection', (socket: Socket) => {
    peer = new Peer(socket);
  });
  client = await Client.connect({ path });
});

afterEach(async () => {
  await client.close();
  server.close();
  await rm(dir, { recursive: true });
});

const lock = { fid: 1, type: 0, flags: 0, start: 0, length: 0, proc_id: 1, client_id: '' };
const outcome = (answer: Promise<unknown>) => answer.catch(error => error);

describe('a client', () => {
  it('negotiates a version with NOTAG and adopts the msize of the server', async () => {
    expect(client.msize).toBe(8192);
    expect(await client.version(8192)).toBe(8192);
  });

  it('sends many requests at a time and matches replies in any order', async () => {
    const answers = Array.from({ length: 100 }, (_, n) => client.wire.request('readlink', { fid: n }));
    const requests = await peer.received(100);
    expect(new Set(requests.map(({ tag }) => tag)).size).toBe(100);
    for (const { tag, request } of [...requests].reverse())
      peer.reply('readlink', tag, { target: `of ${(request as { fid: number }).fid}` });
    expect((await Promise.all(answers)).map(({ target }) => target)).toEqual(
      Array.from({ length: 100 }, (_, n) => `of ${n}`),
    );
  });

  it('rejects with the errno of Rlerror', async () => {
    const answer = client.clunk(5);
    const [first] = await peer.received(1);
    peer.refuse(first!.tag, EBADF);
    expect(await outcome(answer)).toBe(EBADF);
  });

  it('rejects waiting and later requests when the connection is closed', async () => {
    const answers = [client.readlink(1), client.readlink(2)];
    await peer.received(2);
    peer.socket.destroy();
    for (const answer of answers) expect(await outcome(answer)).toBeInstanceOf(Disconnected);
    await client.wire.closed;
    expect(await outcome(client.readlink(3))).toBeInstanceOf(Disconnected);
  });

  it('closes the connection on a reply to an unused tag', async () => {
    const answer = client.readlink(1);
    const [first] = await peer.received(1);
    peer.reply('readlink', first!.tag + 1, { target: '' });
    expect(await outcome(answer)).toBeInstanceOf(Disconnected);
    await client.wire.closed;
  });

  it('closes the connection on an invalid frame size', async () => {
    peer.socket.write(Buffer.from('06000000750000', 'hex'));
    await client.wire.closed;
    expect(await outcome(client.readlink(3))).toBeInstanceOf(Disconnected);
  });

  it('rejects a flushed request with EINTR on Rflush', async () => {
    const tag = client.wire.freeTag();
    const blocked = outcome(client.wire.request('readlink', { fid: 1 }, tag));
    const flushed = client.flush(tag);
    const requests = await peer.received(2);
    expect(requests[1]!.request).toEqual({ oldtag: tag });
    peer.reply('flush', requests[1]!.tag, {});
    await flushed;
    expect(await blocked).toBe(EINTR);
  });

  it('sends raw bytes and passes raw replies to `tap`', async () => {
    const replies: string[] = [];
    const seen = new Promise<void>(resolve => {
      client.wire.tap = frame => {
        replies.push(frame.toString('hex'));
        resolve();
        return true;
      };
    });
    client.wire.send(Buffer.from('0b000000780900', 'hex'));
    client.wire.send(Buffer.from('03000000', 'hex'));
    const [first] = await peer.received(1);
    expect(first).toEqual({ op: 'clunk', tag: 9, request: { fid: 3 } });
    peer.reply('clunk', 9, {});
    await seen;
    expect(replies).toEqual(['07000000790900']);
  });

  it('rejects a request with a tag in use', async () => {
    const first = outcome(client.wire.request('clunk', { fid: 1 }, 7));
    expect(await outcome(client.wire.request('clunk', { fid: 2 }, 7))).toBe(EPROTO);
    await peer.received(1);
    peer.reply('clunk', 7, {});
    expect(await first).toEqual({});
  });

  it('rejects a value that does not fit its field, and leaves the tag free', async () => {
    const wrong = client.wire.request('lock', { ...lock, type: 256 }, 7);
    expect(await outcome(wrong)).toBeInstanceOf(RangeError);
    const right = outcome(client.wire.request('clunk', { fid: 1 }, 7));
    expect((await peer.received(1))[0]).toMatchObject({ op: 'clunk', tag: 7 });
    peer.reply('clunk', 7, {});
    expect(await right).toEqual({});
  });

  it('that flushes an answered request does not affect the next request with its tag', async () => {
    const first = client.wire.request('clunk', { fid: 1 }, 7);
    const flushed = client.flush(7);
    const flush = (await peer.received(2))[1]!;
    peer.reply('clunk', 7, {});
    await first;
    const second = outcome(client.wire.request('clunk', { fid: 2 }, 7));
    await peer.received(3);
    peer.reply('flush', flush.tag, {});
    await flushed;
    peer.reply('clunk', 7, {});
    expect(await second).toEqual({});
  });

  it('allocates every tag except NOTAG', async () => {
    const tags = new Set(Array.from({ length: 70_000 }, () => client.wire.freeTag()));
    expect(tags.size).toBe(NOTAG);
    expect(tags.has(NOTAG)).toBe(false);
  });
});

describe('a walk of a client', () => {
  const qid = { type: 0x80, version: 0, pathLow: 1, pathHigh: 0 };
  const deep = Array.from({ length: 20 }, () => 'd').join('/');

  it('of more than 16 names uses several messages', async () => {
    const answer = client.walk(1, deep, 9);
    const [first] = await peer.received(1);
    peer.reply('walk', first!.tag, { wqid: new Array(16).fill(qid) });
    const second = (await peer.received(2))[1]!;
    expect(second.request).toEqual({ fid: 9, newfid: 9, wname: ['d', 'd', 'd', 'd'] });
    peer.reply('walk', second.tag, { wqid: new Array(4).fill(qid) });
    expect(await answer).toBe(9);
  });

  it('that ends early rejects with ENOENT and clunks its intermediate fid', async () => {
    const answer = outcome(client.walk(1, deep, 9));
    const [first] = await peer.received(1);
    peer.reply('walk', first!.tag, { wqid: new Array(16).fill(qid) });
    const second = (await peer.received(2))[1]!;
    peer.reply('walk', second.tag, { wqid: [qid] });
    const third = (await peer.received(3))[2]!;
    expect(third).toMatchObject({ op: 'clunk', request: { fid: 9 } });
    peer.reply('clunk', third.tag, {});
    expect(await answer).toBe(ENOENT);
  });

  it('in place that ends early does not clunk the fid', async () => {
    const answer = outcome(client.walk(1, 'a/b', 1));
    const [first] = await peer.received(1);
    peer.reply('walk', first!.tag, { wqid: [qid] });
    expect(await answer).toBe(ENOENT);
    expect(peer.requests).toHaveLength(1);
  });
});
