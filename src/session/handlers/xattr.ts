import { E2BIG, EINVAL, ENODATA, ENOMEM, ENOSPC } from '#base/errno.ts';
import { asOwned, type Segments } from '#base/owned.ts';
import { P9_XATTR_CREATE, P9_XATTR_REPLACE } from '#protocol/constants.ts';
import type { Data } from '#protocol/kinds.ts';
import { xattrValueBytesMax } from '#quota/limits.ts';
import { Fid, type XattrRead, type XattrWrite } from '../fids.ts';
import type { Request } from '../request.ts';
import { done, fillLater, type Handlers } from './handler.ts';

const aclPrefix = 'system.posix_acl_';

/** Counts the bytes of a fid's value against the quota until the fid is dropped. Throws ENOMEM at the limit. */
function admit({ session: { quota } }: Request, bytes: number): void {
  if (!quota.mayAdd('xattrBytes', bytes)) throw ENOMEM;
  quota.add('xattrBytes', bytes);
}

/** Reads the value as it was at Txattrwalk; never beyond its end (CVE-2016-9104). */
export function readXattr({ value }: XattrRead, offset: number, count: number): Data {
  if (offset >= value.length) return { count: 0 };
  const bytes = value.subarray(offset, offset + Math.min(count, value.length - offset));
  return { count: bytes.length, bytes };
}

/** Appends to the value: EINVAL unless `offset` is the end of what was written, ENOSPC beyond the announced size. */
export function writeXattr(use: XattrWrite, offset: number, payload: Segments, count: number): number {
  if (offset !== use.written) throw EINVAL;
  if (count > use.value.length - offset) throw ENOSPC;
  for (const segment of payload) {
    use.value.set(segment, use.written);
    use.written += segment.length;
  }
  return count;
}

/** Sets or removes the xattr on Tclunk. EINVAL, and no change, if the value is incomplete. */
export async function commitXattr(
  request: Request,
  { attachment, node }: Fid,
  use: XattrWrite,
): Promise<void> {
  const { tree } = attachment;
  const ctx = request.as(attachment);
  const { name, flags, value, written } = use;
  if (written !== value.length) throw EINVAL;
  if (value.length > 0) return tree.setXattr(ctx, node, name, value, flags);
  // fs/9p removes an xattr with size 0 and REPLACE, an ACL with size 0 alone. A missing ACL is no error.
  if ((flags & P9_XATTR_REPLACE) !== 0) return tree.removeXattr(ctx, node, name);
  if (!name.startsWith(aclPrefix)) return tree.setXattr(ctx, node, name, value, flags);
  try {
    await tree.removeXattr(ctx, node, name);
  } catch (error) {
    if (error !== ENODATA) throw error;
  }
}

/** The value in a buffer of exactly its size, which does not keep a larger one alive. */
function compact(value: Uint8Array): Uint8Array {
  return value.buffer.byteLength === value.length ? value : value.slice();
}

export const xattrs = {
  xattrwalk(request, { fid: number, newfid, name }) {
    const { fids } = request.session;
    const from = request.object(number);
    const { attachment, node } = from;
    const { tree } = attachment;
    const ctx = request.as(attachment);
    fids.checkFree(newfid);
    const found = name === '' ? tree.listXattr(ctx, node) : tree.getXattr(ctx, node, name);
    const snapshot = (bytes: Uint8Array): Fid => {
      admit(request, bytes.length);
      tree.hold(node);
      return new Fid(attachment, node, { kind: 'xattr-read', value: compact(bytes) }, undefined, undefined);
    };
    if (!(found instanceof Promise)) {
      fids.put(newfid, snapshot(found));
      return { size: found.length };
    }
    return fillLater(request, newfid, found, bytes => ({
      fid: snapshot(bytes),
      reply: { size: bytes.length },
    }));
  },

  xattrcreate(request, { fid: number, name, attr_size, flags }) {
    const fid = request.unopened(number);
    if (name === '' || (flags & ~(P9_XATTR_CREATE | P9_XATTR_REPLACE)) !== 0) throw EINVAL;
    if (attr_size.high !== 0 || attr_size.low > xattrValueBytesMax) throw E2BIG;
    admit(request, attr_size.low);
    // Zeroed, so that unwritten bytes never show old memory (CVE-2016-9103).
    fid.use = { kind: 'xattr-write', name, flags, value: asOwned(new Uint8Array(attr_size.low)), written: 0 };
    return done;
  },
} satisfies Partial<Handlers>;
