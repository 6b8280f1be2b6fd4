import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Errno } from '#base/errno.ts';
import { decodeReply, decodeRequest, frameTag, frameType, requestOp } from '#protocol/codec.ts';
import { FrameBuffer } from '#protocol/frame-buffer.ts';
import type { Op, RMessage, TMessage } from '#protocol/operations.ts';

const bytesMax = 1 << 20;

interface Request {
  readonly op: Op;
  readonly fields: unknown;
}

/**
 * A TCP relay between a guest and a server. Tracks the content of the given files: the initial content, and each Twrite from
 * its Rwrite on.
 */
export class WireTap {
  readonly port: number;
  /** Names in the export's root, and their content. */
  readonly files = new Map<string, Buffer>();
  /** Rreads with other data than the file's content at that moment, and failed or short writes. */
  readonly wrong: string[] = [];
  readonly #listener: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(listener: Server, server: number) {
    this.#listener = listener;
    this.port = (listener.address() as AddressInfo).port;
    listener.on('connection', guest => this.#relay(guest, connect(server, '127.0.0.1')));
  }

  /** `server` is a port of this machine's 127.0.0.1. */
  static async start(server: number): Promise<WireTap> {
    const listener = createServer().listen(0, '127.0.0.1');
    await once(listener, 'listening');
    return new WireTap(listener, server);
  }

  stop(): void {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #relay(guest: Socket, server: Socket): void {
    const names = new Map<number, string>();
    const running = new Map<number, Request>();
    const requests = (frame: Buffer) => {
      const op = requestOp(frameType(frame));
      if (op === undefined) return;
      // The frame's memory is reused.
      running.set(frameTag(frame), { op, fields: decodeRequest(op, Buffer.from(frame)) });
    };
    const replies = (frame: Buffer) => {
      const request = running.get(frameTag(frame));
      if (request === undefined) return;
      running.delete(frameTag(frame));
      this.#settle(names, request, decodeReply(request.op, frame));
    };
    this.#pipe(guest, server, requests);
    this.#pipe(server, guest, replies);
  }

  #pipe(from: Socket, to: Socket, look: (frame: Buffer) => void): void {
    const frames = new FrameBuffer();
    this.#sockets.add(from);
    from.setNoDelay(true);
    from.on('data', chunk => {
      frames.push(chunk as Buffer, () => bytesMax, look);
      to.write(chunk);
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.#sockets.delete(from);
      to.end();
    });
  }

  #settle(names: Map<number, string>, { op, fields }: Request, reply: RMessage<Op> | Errno): void {
    if (op === 'walk') {
      const { fid, newfid, wname } = fields as TMessage<'walk'>;
      const name = wname.length > 0 ? String(wname.at(-1)) : names.get(fid);
      if (!(reply instanceof Errno) && name !== undefined) names.set(newfid, name);
    } else if (op === 'clunk') {
      names.delete((fields as TMessage<'clunk'>).fid);
    } else if (op === 'write') {
      this.#wrote(names, fields as TMessage<'write'>, reply as RMessage<'write'> | Errno);
    } else if (op === 'read') {
      this.#read(names, fields as TMessage<'read'>, reply as RMessage<'read'> | Errno);
    }
  }

  #wrote(names: Map<number, string>, request: TMessage<'write'>, reply: RMessage<'write'> | Errno): void {
    const { fid, offset, data } = request;
    const name = names.get(fid) ?? '';
    const before = this.files.get(name);
    if (before === undefined) return;
    if (reply instanceof Errno || reply.count !== data.count) {
      this.wrong.push(`write of ${data.count} at ${offset} of ${name}`);
      return;
    }
    const after = Buffer.alloc(Math.max(before.length, Number(offset) + data.count));
    before.copy(after);
    after.set(data.bytes!, Number(offset));
    this.files.set(name, after);
  }

  #read(names: Map<number, string>, request: TMessage<'read'>, reply: RMessage<'read'> | Errno): void {
    const { fid, offset, count } = request;
    const name = names.get(fid) ?? '';
    const content = this.files.get(name)?.subarray(Number(offset), Number(offset) + count);
    if (content === undefined) return;
    const read = reply instanceof Errno ? undefined : (reply.data.bytes ?? new Uint8Array());
    if (read === undefined || !content.equals(read))
      this.wrong.push(`read of ${count} at ${offset} of ${name}`);
  }
}
