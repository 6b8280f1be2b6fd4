import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';

// The host's end of scripts/guest/agent.c, which documents the frames.

/** Credentials of a command in the guest. */
export interface GuestUser {
  uid: number;
  gid: number;
  groups?: number[];
}

/** Result of a command. `status` is its exit status, or 128 plus the signal that killed it. */
export interface GuestResult {
  status: number;
  stdout: Buffer;
  stderr: Buffer;
}

interface Pending {
  stdout: Buffer[];
  stderr: Buffer[];
  resolve(result: GuestResult): void;
  reject(error: Error): void;
}

const agentHead = 5;
const scriptBytesMax = 100_000;

export class GuestChannel {
  readonly #server: Server;
  readonly #pending = new Map<number, Pending>();
  readonly #ready: Promise<void>;
  #socket: Socket | undefined;
  #received = Buffer.alloc(0);
  #lastId = 0;
  #whenReady: () => void = () => undefined;
  #failure: Error | undefined;

  private constructor(server: Server) {
    this.#server = server;
    this.#ready = new Promise(resolve => {
      this.#whenReady = resolve;
    });
    server.once('connection', socket => this.#attach(socket));
  }

  /** Listens on the Unix socket of QEMU's virtio-serial port. */
  static async listen(path: string): Promise<GuestChannel> {
    const server = createServer();
    server.listen(path);
    await once(server, 'listening');
    return new GuestChannel(server);
  }

  /** Resolves when the agent is ready. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** Runs a bash script; resolves when the shell has ended. `started` gets the id for `kill`. */
  run(script: string, user: GuestUser, started?: (id: number) => void): Promise<GuestResult> {
    const text = Buffer.from(script, 'utf8');
    if (text.length > scriptBytesMax) throw new RangeError(`a script of ${text.length} bytes`);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const groups = user.groups ?? [];
    const head = Buffer.alloc(12 + 4 * groups.length);
    head.writeUInt32LE(user.uid, 0);
    head.writeUInt32LE(user.gid, 4);
    head.writeUInt32LE(groups.length, 8);
    for (const [at, group] of groups.entries()) head.writeUInt32LE(group, 12 + 4 * at);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { stdout: [], stderr: [], resolve, reject });
      this.#send(id, 'R', Buffer.concat([head, text]));
      started?.(id);
    });
  }

  /** Sends a signal to the whole process group of a command. */
  kill(id: number, signal: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32LE(signal);
    this.#send(id, 'K', payload);
  }

  /** Fails all running and later commands with this error. */
  fail(error: Error): void {
    this.#failure ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#failure);
    this.#pending.clear();
  }

  close(): void {
    this.#socket?.destroy();
    this.#server.close();
  }

  #send(id: number, kind: string, payload: Buffer): void {
    const head = Buffer.alloc(9);
    head.writeUInt32LE(agentHead + payload.length, 0);
    head.writeUInt32LE(id, 4);
    head.write(kind, 8, 'latin1');
    this.#socket?.write(Buffer.concat([head, payload]));
  }

  #attach(socket: Socket): void {
    this.#socket = socket;
    socket.on('error', error => this.fail(error));
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      while (this.#received.length >= 4) {
        const end = 4 + this.#received.readUInt32LE(0);
        if (this.#received.length < end) return;
        this.#take(this.#received.subarray(4, end));
        this.#received = this.#received.subarray(end);
      }
    });
  }

  #take(frame: Buffer): void {
    const id = frame.readUInt32LE(0);
    const kind = frame.toString('latin1', 4, 5);
    const payload = Buffer.from(frame.subarray(agentHead));
    if (kind === 'H') this.#whenReady();
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    if (kind === 'O') pending.stdout.push(payload);
    if (kind === 'E') pending.stderr.push(payload);
    if (kind === 'X') {
      this.#pending.delete(id);
      pending.resolve({
        status: payload.readUInt32LE(0),
        stdout: Buffer.concat(pending.stdout),
        stderr: Buffer.concat(pending.stderr),
      });
    }
  }
}
