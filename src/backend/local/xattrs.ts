import { EPERM, ERANGE } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { allocOwned, asOwned, type Owned } from '#base/owned.ts';
import { expectCount } from '#host/control-block.ts';
import type { Credentials } from '#host/syscalls.ts';
import { xattrValueBytesMax } from '#quota/limits.ts';
import type { SecurityModel } from '#security/model.ts';
import { writableFile } from '#security/write-access.ts';
import type { CallContext } from '../tree.ts';
import type { LocalNode } from './node.ts';
import type { NodeTable } from './node-table.ts';

const accessAcl = 'system.posix_acl_access';

/** Room for most values; for a larger one the call is repeated with room for the largest. */
const firstTryBytes = 512;

/** Extended attributes, with the host names that the security model gives them. */
export class LocalXattrs {
  readonly #nodes: NodeTable;
  readonly #model: SecurityModel;

  constructor(nodes: NodeTable, model: SecurityModel) {
    this.#nodes = nodes;
    this.#model = model;
  }

  get(ctx: CallContext, node: LocalNode, name: Bytes): MaybePromise<Uint8Array> {
    const hostName = this.#model.xattrToHost(name, ctx.creds, 'get', node.type);
    const sys = node.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    return andThen(
      this.#nodes.use(ctx, node, fd => readWhole(into => sys.getxattr(creds, fd, hostName, into))),
      value => this.#model.valueToClient?.(name, value) ?? value,
    );
  }

  list(ctx: CallContext, node: LocalNode): MaybePromise<Uint8Array> {
    const sys = node.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    const list = this.#nodes.use(ctx, node, fd => readWhole(into => sys.listxattr(creds, fd, into)));
    return andThen(list, bytes => this.#shown(ctx, bytes));
  }

  /** The names of a list that clients see. */
  #shown(ctx: CallContext, list: Uint8Array): Uint8Array {
    const names = Buffer.from(list.buffer, list.byteOffset, list.byteLength).toString('latin1').split('\0');
    let shown = '';
    for (const name of names) {
      const clientName = name === '' ? undefined : this.#model.xattrToClient(name, ctx.creds);
      if (clientName !== undefined) shown += `${clientName}\0`;
    }
    return Buffer.from(shown, 'latin1');
  }

  set(ctx: CallContext, node: LocalNode, name: Bytes, value: Owned, flags: number): MaybePromise<void> {
    const hostName = this.#model.xattrToHost(name, ctx.creds, 'set', node.type);
    const sys = node.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    const hostValue = asOwned(this.#model.valueToHost?.(name, value) ?? value);
    return this.#nodes.use(ctx, node, fd =>
      this.#reportRefusal(name, ctx.creds, () => {
        const forAcl = name === accessAcl ? this.#model.credsForAcl?.({ sys, fd }, ctx.creds) : undefined;
        return andThen(forAcl ?? creds, as => sys.setxattr(as, fd, hostName, hostValue, flags));
      }),
    );
  }

  async remove(ctx: CallContext, node: LocalNode, name: Bytes): Promise<void> {
    const hostName = this.#model.xattrToHost(name, ctx.creds, 'set', node.type);
    const sys = node.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    await this.#nodes.use(ctx, node, async fd => {
      try {
        await this.#reportRefusal(name, ctx.creds, () => sys.removexattr(creds, fd, hostName));
      } catch (error) {
        if (error !== EPERM || name !== 'security.capability') throw error;
        if ((await writableFile({ sys, fd }, creds)) === undefined) throw error;
      }
    });
  }

  /** Reports EPERM to the model. */
  #reportRefusal(name: Bytes, creds: Credentials, act: () => MaybePromise<void>): MaybePromise<void> {
    return recover<void>(act, error => {
      if (error === EPERM) this.#model.xattrRefused?.(name, creds);
      throw error;
    });
  }
}

/** The bytes that the last call returned: the size may change between two calls (CVE-2017-15038). */
function readWhole(read: (into: Owned) => MaybePromise<number>): MaybePromise<Uint8Array> {
  const small = allocOwned(firstTryBytes);
  return andThen(read(small), length => {
    if (length !== -ERANGE.code) return small.subarray(0, expectCount(length));
    const large = allocOwned(xattrValueBytesMax);
    return andThen(read(large), again => large.subarray(0, expectCount(again)));
  });
}
