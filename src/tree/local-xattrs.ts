import { type Answer, andThen, recover } from '../answer.ts';
import { EPERM, ERANGE, Errno } from '../errno.ts';
import type { Caller } from '../host/syscalls.ts';
import { xattrValueBytesMax } from '../limits.ts';
import type { Bytes } from '../name.ts';
import { allocOwned, asOwned, type Owned } from '../owned.ts';
import { writableFile } from '../security/may-write.ts';
import type { SecurityModel } from '../security/model.ts';
import type { LocalNode, NodeTable } from './local-node.ts';

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

  get(caller: Caller, node: LocalNode, name: Bytes): Answer<Uint8Array> {
    const hostName = this.#model.xattrToHost(name, caller, 'get', node.type);
    const as = this.#model.runsAs(caller);
    return andThen(
      this.#nodes.use(node, fd => readWhole(into => node.volume.sys.getxattr(as, fd, hostName, into))),
      value => this.#model.valueToClient?.(name, value) ?? value,
    );
  }

  list(caller: Caller, node: LocalNode): Answer<Uint8Array> {
    const as = this.#model.runsAs(caller);
    return andThen(
      this.#nodes.use(node, fd => readWhole(into => node.volume.sys.listxattr(as, fd, into))),
      bytes => {
        const names = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
          .toString('latin1')
          .split('\0');
        let seen = '';
        for (const name of names) {
          const shown = name === '' ? undefined : this.#model.xattrToClient(name, caller);
          if (shown !== undefined) seen += `${shown}\0`;
        }
        return Buffer.from(seen, 'latin1');
      },
    );
  }

  set(caller: Caller, node: LocalNode, name: Bytes, value: Owned, flags: number): Answer<void> {
    const hostName = this.#model.xattrToHost(name, caller, 'set', node.type);
    const as = this.#model.runsAs(caller);
    const kept = asOwned(this.#model.valueToHost?.(name, value) ?? value);
    return this.#nodes.use(node, fd => node.volume.sys.setxattr(as, fd, hostName, kept, flags));
  }

  remove(caller: Caller, node: LocalNode, name: Bytes): Answer<void> {
    const hostName = this.#model.xattrToHost(name, caller, 'set', node.type);
    const as = this.#model.runsAs(caller);
    const { sys } = node.volume;
    return this.#nodes.use(node, fd =>
      recover<void>(
        () => sys.removexattr(as, fd, hostName),
        async error => {
          if (error !== EPERM || name !== 'security.capability') throw error;
          if ((await writableFile({ sys, fd }, as)) === undefined) throw error;
        },
      ),
    );
  }
}

/** Exactly the bytes that the last call returned: the size may change between two calls (CVE-2017-15038). */
function readWhole(read: (into: Owned) => Answer<number>): Answer<Uint8Array> {
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
