import { EPERM, ERANGE, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { allocOwned, asOwned, type Owned } from '#base/owned.ts';
import type { Credentials } from '#host/syscalls.ts';
import { xattrValueBytesMax } from '#quota/limits.ts';
import type { SecurityModel } from '#security/model.ts';
import { writableFile } from '#security/write-access.ts';
import type { CallContext } from '../tree.ts';
import type { LocalNode, NodeTable } from './node.ts';

const accessAcl = 'system.posix_acl_access';

/** Most values fit; a larger one is asked for again with room for the largest there can be. */
const firstTryBytes = 512;

/** Extended attributes of held objects, under the names that the security model gives them. */
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
    const as = this.#model.credsFor(ctx.creds);
    return andThen(
      this.#nodes.use(ctx, node, fd => readWhole(into => sys.getxattr(as, fd, hostName, into))),
      value => this.#model.valueToClient?.(name, value) ?? value,
    );
  }

  list(ctx: CallContext, node: LocalNode): MaybePromise<Uint8Array> {
    const sys = node.volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    return andThen(
      this.#nodes.use(ctx, node, fd => readWhole(into => sys.listxattr(as, fd, into))),
      bytes => {
        const names = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
          .toString('latin1')
          .split('\0');
        let seen = '';
        for (const name of names) {
          const shown = name === '' ? undefined : this.#model.xattrToClient(name, ctx.creds);
          if (shown !== undefined) seen += `${shown}\0`;
        }
        return Buffer.from(seen, 'latin1');
      },
    );
  }

  set(ctx: CallContext, node: LocalNode, name: Bytes, value: Owned, flags: number): MaybePromise<void> {
    const hostName = this.#model.xattrToHost(name, ctx.creds, 'set', node.type);
    const sys = node.volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    const kept = asOwned(this.#model.valueToHost?.(name, value) ?? value);
    return this.#nodes.use(ctx, node, fd =>
      this.#telling(name, ctx.creds, () => {
        if (name !== accessAcl || !this.#model.credsForAcl)
          return sys.setxattr(as, fd, hostName, kept, flags);
        return andThen(this.#model.credsForAcl({ sys, fd }, ctx.creds), member =>
          sys.setxattr(member, fd, hostName, kept, flags),
        );
      }),
    );
  }

  remove(ctx: CallContext, node: LocalNode, name: Bytes): MaybePromise<void> {
    const hostName = this.#model.xattrToHost(name, ctx.creds, 'set', node.type);
    const as = this.#model.credsFor(ctx.creds);
    const sys = node.volume.sys(ctx);
    return this.#nodes.use(ctx, node, fd =>
      recover<void>(
        () => this.#telling(name, ctx.creds, () => sys.removexattr(as, fd, hostName)),
        async error => {
          if (error !== EPERM || name !== 'security.capability') throw error;
          if ((await writableFile({ sys, fd }, as)) === undefined) throw error;
        },
      ),
    );
  }

  /** Tells the model of a refusal. */
  #telling(name: Bytes, creds: Credentials, act: () => MaybePromise<void>): MaybePromise<void> {
    return recover<void>(act, error => {
      if (error === EPERM) this.#model.xattrRefused?.(name, creds);
      throw error;
    });
  }
}

/** Exactly the bytes that the last call returned: the size may change between two calls (CVE-2017-15038). */
function readWhole(read: (into: Owned) => MaybePromise<number>): MaybePromise<Uint8Array> {
  const small = allocOwned(firstTryBytes);
  return andThen(read(small), length => {
    if (length >= 0) return small.subarray(0, length);
    if (length !== -ERANGE.code) throw Errno.of(-length);
    const large = allocOwned(xattrValueBytesMax);
    return andThen(read(large), again => {
      if (again < 0) throw Errno.of(-again);
      return large.subarray(0, again);
    });
  });
}
