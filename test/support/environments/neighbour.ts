import { Errno } from '#base/errno.ts';
import { decodeReply, encodeRequest } from '#protocol/codec.ts';
import { NOFID, NOTAG } from '#protocol/constants.ts';
import type { Draft, Op } from '#protocol/operations.ts';
import type { ExportLookup } from '#session/attachment.ts';
import { type Asking, FuzzClient } from '../../fuzz/fuzz-client.ts';

/** With equal groups, so that only the uid changes between them. */
export const neighbourUids = [4242, 4243];

/**
 * Another user of the same export, who creates and removes a directory repeatedly. Its requests begin between two of the
 * test's.
 */
export class Neighbour {
  readonly #client: FuzzClient;
  #running: { readonly op: Op; readonly asking: Asking } | undefined;
  #rounds = 0;
  /** Distinct failures. */
  readonly wrong = new Set<string>();

  private constructor(exports: ExportLookup) {
    this.#client = new FuzzClient(exports);
  }

  /** `directory` is a directory in the export's root, writable for this user. */
  static async begin(exports: ExportLookup, directory: string, n_uname: number): Promise<Neighbour> {
    const one = new Neighbour(exports);
    await one.#request('version', { msize: 8192, version: '9P2000.L' });
    await one.#request('attach', { fid: 0, afid: NOFID, uname: '', aname: '', n_uname });
    await one.#request('walk', { fid: 0, newfid: 1, wname: [directory] });
    return one;
  }

  #frame<O extends Op>(op: O, asked: Draft<O>): Buffer {
    return encodeRequest(op, op === 'version' ? NOTAG : 1, asked);
  }

  async #request<O extends Op>(op: O, asked: Draft<O>): Promise<void> {
    this.#check(op, await this.#client.request(this.#frame(op, asked)));
  }

  #check(op: Op, reply: Buffer): void {
    const decoded = decodeReply(op, reply);
    if (decoded instanceof Errno) this.wrong.add(`T${op} of another user: ${decoded.name}`);
  }

  /** Starts the next request, unless one runs. */
  act(): void {
    const last = this.#running;
    if (last?.asking.state === 'waiting') return;
    if (last?.asking.reply) this.#check(last.op, last.asking.reply);
    const op = this.#rounds++ % 2 === 0 ? 'mkdir' : 'unlinkat';
    const frame =
      op === 'mkdir'
        ? this.#frame(op, { dfid: 1, name: 'd', mode: 0o755, gid: 0 })
        : this.#frame(op, { dirfid: 1, name: 'd', flags: 0x200 });
    this.#running = { op, asking: this.#client.ask(frame) };
  }

  async end(): Promise<void> {
    await this.#client.close();
  }
}
