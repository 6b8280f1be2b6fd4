import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FrameBuffer } from '#protocol/frame-buffer.ts';
import type { Exchange, SessionPort, TransportPort } from '#session/exchange.ts';
import { endpointOf } from '#transport/endpoint.ts';
import { type Listener, listen } from '#transport/listen.ts';
import { Stream } from '#transport/stream.ts';

/** A message of a type and a tag, with a body. */
function message(type: number, tag: number, body: Uint8Array = Buffer.alloc(0)): Buffer {
  const frame = Buffer.alloc(7 + body.length);
  frame.writeUInt32LE(frame.length, 0);
  frame[4] = type;
  frame.writeUInt16LE(tag, 5);
  frame.set(body, 7);
  return frame;
}

/** Collects the messages that a client receives. */
class Replies {
  readonly #buffer = new FrameBuffer();
  readonly list: Buffer[] = [];
  readonly socket: net.Socket;
  ended = false;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', chunk => {
      this.#buffer.push(
        chunk as Buffer,
        () => 2 ** 31,
        frame => this.list.push(Buffer.from(frame)),
      );
    });
    socket.on('error', () => undefined);
    socket.on('end', () => {
      this.ended = true;
      socket.end();
    });
  }

  async count(count: number): Promise<Buffer[]> {
    await until(() => this.list.length >= count);
    return this.list;
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await sleep(5);
  if (!condition()) throw new Error('condition not met within 5 s');
}

const echoAtOnce = 1;
const echoLater = 2;
const sendData = 3;
const sendDataLater = 4;
const neverAnswer = 5;
const changeLater = 6;
const Tflush = 108;
const Twrite = 118;

/** Session with six message types of its own. Answers Twrite with the length of its payload. */
class Echo implements SessionPort {
  readonly line: TransportPort;
  readonly kept: Exchange[] = [];
  frameBytesMax = 1024 * 1024;
  full = false;
  unreadBytesMax = 4 * 1024 * 1024;
  keptBytes = 0;
  received = 0;
  closed = false;

  constructor(line: TransportPort) {
    this.line = line;
  }

  receive(x: Exchange): void {
    this.received++;
    const head = x.head.subarray(x.from, x.to);
    const type = head[4]!;
    if (type === echoAtOnce) echo(x, head);
    else if (type === Twrite)
      echo(x, message(119, head.readUInt16LE(5), Buffer.from(String(x.payload[0]?.length))));
    else if (type === sendData) fill(x, head.readUInt32LE(7));
    else if (type === changeLater) this.changeLater(x, head);
    else if (type === echoLater || type === neverAnswer || type === sendDataLater)
      this.keep(x.detach(), type);
    else this.line.hangUp('no such message');
  }

  /** Answers with a byte that deferred work sets to the number of requests received by then. */
  changeLater(x: Exchange, head: Buffer): void {
    const { out, at } = x;
    const deferred = x.defer(() => {
      out[at + 7] = this.received;
    });
    echo(x, head);
    if (!deferred) out[at + 7] = 0xff;
  }

  keep(late: Exchange, type: number): void {
    this.kept.push(late);
    if (type === sendDataLater) setTimeout(() => fill(late, late.head.readUInt32LE(7)), 5);
    if (type === echoLater) setImmediate(() => echo(late, late.head));
  }

  account(bytes: number): void {
    this.keptBytes += bytes;
    this.full = this.keptBytes > 32 * 1024 * 1024;
    if (bytes < 0) this.line.resume();
  }

  takes(type: number, unreadBytes: number): boolean {
    return (!this.full || type === Tflush) && unreadBytes <= this.unreadBytesMax;
  }

  async finish(): Promise<void> {}

  async close(): Promise<void> {
    this.closed = true;
  }
}

function echo(x: Exchange, frame: Buffer): void {
  frame.copy(x.out, x.at);
  x.commit(frame.length, 0);
}

/** Like Rread: `count` bytes of the letter x after a head of 11 bytes. */
function fill(x: Exchange, count: number): void {
  const [space] = x.reserveData(count);
  space!.fill(0x78);
  const { out, at } = x;
  out.writeUInt32LE(11 + count, at);
  out[at + 4] = 117;
  out.writeUInt16LE(x.head.readUInt16LE(x.from + 5), at + 5);
  out.writeUInt32LE(count, at + 7);
  x.commit(11, count);
}

const u32 = (value: number): Buffer => Buffer.from([value, value >>> 8, value >>> 16, value >>> 24]);

describe('a stream', () => {
  let sessions: Echo[];
  let streams: Stream[];
  let said: string[];
  let path: string;
  let dir: string;
  let listener: Listener;

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-transport-'));
    path = join(dir, 's');
    sessions = [];
    streams = [];
    said = [];
    const endpoint = endpointOf(`unix://${path}`);
    if (typeof endpoint === 'string') throw new Error(endpoint);
    const open = (line: TransportPort) => {
      const session = new Echo(line);
      sessions.push(session);
      return session;
    };
    const accept = (source: ConstructorParameters<typeof Stream>[0], peer: TransportPort['peer']) =>
      void streams.push(new Stream(source, peer, open, text => said.push(text)));
    listener = await listen(endpoint, accept, text => said.push(text));
  });
  afterEach(async () => {
    listener.close();
    for (const stream of streams) stream.destroy();
    await Promise.all(streams.map(stream => stream.closed));
    rmSync(dir, { recursive: true, force: true });
  });

  async function connected(options: net.NetConnectOpts = { path, allowHalfOpen: true }): Promise<Replies> {
    const count = sessions.length;
    const replies = new Replies(net.connect(options));
    await until(() => sessions.length > count);
    return replies;
  }

  it('answers requests that are sent together, in one write or byte by byte', async () => {
    const replies = await connected();
    const requests = Array.from({ length: 50 }, (_, i) => message(echoAtOnce, i, Buffer.from(`body ${i}`)));
    const bytes = Buffer.concat(requests);
    replies.socket.write(bytes);
    for (const byte of bytes.subarray(0, 60)) {
      replies.socket.write(Buffer.from([byte]));
      await sleep(0);
    }
    replies.socket.write(bytes.subarray(60));
    const list = await replies.count(100);
    expect(Buffer.concat(list).equals(Buffer.concat([bytes, bytes]))).toBe(true);
  });

  it('runs deferred work after the requests that are received together, before it sends a reply', async () => {
    const replies = await connected();
    const requests = [1, 2, 3].map(tag => message(changeLater, tag, Buffer.from([0])));
    replies.socket.write(Buffer.concat(requests));
    await replies.count(3);
    replies.socket.write(message(changeLater, 4, Buffer.from([0])));
    const list = await replies.count(4);
    expect(list.map(reply => reply[7])).toEqual([3, 3, 3, 4]);
    const [session] = sessions;
    replies.socket.write(message(neverAnswer, 5));
    await until(() => session!.kept.length > 0);
    expect(session!.kept[0]!.defer(() => undefined)).toBe(false);
  });

  it('sends detached replies among inline ones', async () => {
    const replies = await connected();
    const requests = Array.from({ length: 200 }, (_, i) =>
      message(i % 3 === 0 ? echoLater : echoAtOnce, i, Buffer.alloc(i)),
    );
    replies.socket.write(Buffer.concat(requests));
    const list = await replies.count(200);
    const byTag = [...list].sort((a, b) => a.readUInt16LE(5) - b.readUInt16LE(5));
    expect(Buffer.concat(byTag).equals(Buffer.concat(requests))).toBe(true);
  });

  it('carries data of every size, inline and detached', async () => {
    const replies = await connected();
    const sizes = [0, 1, 8181, 65_525, 65_526, 1_000_000, 5, 300_000];
    for (const [i, size] of sizes.entries()) {
      replies.socket.write(message(sendData, 2 * i, u32(size)));
      replies.socket.write(message(sendDataLater, 2 * i + 1, u32(size)));
    }
    const list = await replies.count(2 * sizes.length);
    for (const reply of list) {
      const size = sizes[reply.readUInt16LE(5) >> 1]!;
      expect(
        reply.equals(Buffer.concat([reply.subarray(0, 11), Buffer.alloc(size, 'x')])),
        String(size),
      ).toBe(true);
      expect(reply.readUInt32LE(0)).toBe(11 + size);
    }
  });

  it('passes the payload of a write separately from its head', async () => {
    const replies = await connected();
    replies.socket.write(message(Twrite, 9, Buffer.alloc(16 + 500_000)));
    const [reply] = await replies.count(1);
    expect(reply!.subarray(7).toString()).toBe('500000');
  });

  it('closes for an invalid size after sending the replies so far, and logs it once', async () => {
    const replies = await connected();
    replies.socket.write(Buffer.concat([message(echoAtOnce, 1), u32(0xffff_fff0), Buffer.alloc(100)]));
    await until(() => replies.ended);
    expect(replies.list).toHaveLength(1);
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/^unix pid \d+ uid \d+: .*4294967280/);
    expect(sessions[0]!.closed).toBe(true);
  });

  it('answers running requests after the peer has shut down its sending side', async () => {
    const replies = await connected();
    replies.socket.end(Buffer.concat([message(echoAtOnce, 1), message(echoAtOnce, 2)]));
    await until(() => replies.ended);
    expect(replies.list).toHaveLength(2);
    await until(() => sessions[0]!.closed);
  });

  it('drops a reply after the connection is closed', async () => {
    const replies = await connected();
    replies.socket.write(message(neverAnswer, 1));
    await until(() => sessions[0]!.kept.length === 1);
    replies.socket.destroy();
    await until(() => sessions[0]!.closed);
    echo(sessions[0]!.kept[0]!, message(1, 1));
    fill(sessions[0]!.kept[0]!, 100_000);
    await sleep(10);
    const other = await connected();
    other.socket.write(message(echoAtOnce, 7));
    expect((await other.count(1))[0]!.readUInt16LE(5)).toBe(7);
  });

  it('stops reading from a peer that leaves its replies unread, and resumes when it reads', async () => {
    const replies = await connected();
    replies.socket.pause();
    const requests = 400;
    for (let i = 0; i < requests; i++) replies.socket.write(message(sendData, i, u32(60_000)));
    await sleep(200);
    const { received } = sessions[0]!;
    expect(received).toBeLessThan(150);
    await sleep(50);
    expect(sessions[0]!.received).toBe(received);
    replies.socket.resume();
    await replies.count(requests);
  });

  it('resumes as soon as the unread bytes are below the limit, however small that is', async () => {
    const replies = await connected();
    const session = sessions[0]!;
    // Below the socket's high-water mark, for which Node emits no 'drain'.
    session.unreadBytesMax = 1;
    replies.socket.pause();
    const requests = 600;
    for (let i = 0; i < requests; i++) {
      replies.socket.write(message(echoAtOnce, i, Buffer.alloc(1000)));
      await sleep(0);
    }
    await sleep(50);
    expect(session.received).toBeLessThan(requests);
    replies.socket.resume();
    await replies.count(requests);
  });

  it('stops reading from a peer whose running requests hold too much memory', async () => {
    const replies = await connected();
    for (let i = 0; i < 100; i++) replies.socket.write(message(neverAnswer, i, Buffer.alloc(900_000)));
    const session = sessions[0]!;
    await until(() => session.received > 30);
    await sleep(100);
    expect(session.received).toBeLessThan(50);
    for (const late of session.kept) echo(late, message(1, 0));
    await until(() => session.received > 60);
  });

  it('passes only a Tflush to a session at its limit', async () => {
    const replies = await connected();
    const session = sessions[0]!;
    session.full = true;
    replies.socket.write(message(Tflush, 1));
    await until(() => session.received === 1);
    expect(said).toHaveLength(1);
    const second = await connected();
    const other = sessions[1]!;
    other.full = true;
    second.socket.write(message(echoAtOnce, 1));
    await sleep(50);
    expect(other.received).toBe(0);
    other.full = false;
    other.line.resume();
    await second.count(1);
  });
});
