import { Errno } from '#base/errno.ts';
import { Wire } from '#client/wire.ts';
import type { Draft, Op, RMessage } from '#protocol/operations.ts';
import type { RequestSender } from '../fuzz/sequences.ts';

const replyMsMax = 30_000;
/** A tag outside those of sequences, and a fid that never exists. */
const chatterTag = 0x8000;
const unusedFid = 0xffff_fffe;
/** A message smaller than the smallest msize. */
const chatter = Array.from({ length: 14 }, () => 'c'.repeat(250));

/**
 * A session over the real client. After each request it sends a large one that fails, received while the first may still run: a
 * server that still uses the receive buffer of the first then works on wrong bytes.
 */
export class ClientSender implements RequestSender {
  /** Not visible to a client. */
  readonly fids = undefined;
  readonly #wire: Wire;
  readonly #anames: ReadonlyMap<string, string>;
  #chatter: Promise<unknown> = Promise.resolve();

  private constructor(wire: Wire, anames: ReadonlyMap<string, string>) {
    this.#wire = wire;
    this.#anames = anames;
  }

  /** `anames` maps the requested anames to the server's export names. */
  static async connect(path: string, anames: ReadonlyMap<string, string>): Promise<ClientSender> {
    return new ClientSender(await Wire.connect({ path }), anames);
  }

  async call<O extends Op>(op: O, asked: Draft<O>, tag: number): Promise<RMessage<O> | Errno> {
    const { aname } = asked as { aname?: string };
    const told = aname === undefined ? asked : { ...asked, aname: this.#anames.get(aname) ?? aname };
    let late: NodeJS.Timeout | undefined;
    const silence = new Promise<never>((_, reject) => {
      late = setTimeout(() => reject(new Error(`no reply to T${op} came`)), replyMsMax);
    });
    const answer = this.#wire.request(op, told as Draft<O>, tag).catch(error => {
      if (error instanceof Errno) return error;
      throw error;
    });
    await this.#chatter;
    setImmediate(() => this.#chat());
    try {
      return await Promise.race([answer, silence]);
    } finally {
      clearTimeout(late);
    }
  }

  #chat(): void {
    const asked = { fid: unusedFid, newfid: unusedFid, wname: chatter };
    this.#chatter = this.#wire.request('walk', asked, chatterTag).catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#chatter;
    await this.#wire.close();
  }
}
