import { DIR, FILE, LINK, type ModelNode } from './model/nodes.ts';
import type { ModelSession } from './model/session.ts';
import type { Request } from './requests.ts';

/** The fid of the root, and the first fid that the audit uses. */
const rootFid = 0;
const firstFid = 1000;
const readBytes = 60_000;

/**
 * Reads everything reachable from the root: attributes, contents, targets, entries and xattrs. `session` is one of root's, with
 * the root as fid 0.
 */
/** Of Tsetattr, whose `valid` names the mode alone. */
const noChange = {
  ...{ valid: 1, uid: 0, gid: 0, size: { low: 0, high: 0 } },
  ...{ atime_sec: 0, atime_nsec: 0, mtime_sec: 0, mtime_nsec: 0 },
};

export function* audit(session: ModelSession): Generator<Request> {
  const seen = new Set<ModelNode>();
  yield* auditThing(session, rootFid, session.get(rootFid).node, seen, firstFid);
}

function* auditThing(
  session: ModelSession,
  fid: number,
  node: ModelNode,
  seen: Set<ModelNode>,
  free: number,
): Generator<Request> {
  yield { op: 'getattr', asked: { fid, request_mask: 0x3fff } };
  if (seen.has(node)) return;
  seen.add(node);
  // A server without privileges can always give itself what a mode denies its owner.
  const opens = node.type === FILE || node.type === DIR;
  if (session.world.files.modelOptions.server && opens && (node.mode & 0o700) !== 0o700)
    yield { op: 'setattr', asked: { ...noChange, fid, mode: node.mode | 0o700 } };
  yield* auditXattrs(session, fid, node, free);
  if (node.type === LINK) yield { op: 'readlink', asked: { fid } };
  if (node.type !== FILE && node.type !== DIR) return;
  yield { op: 'walk', asked: { fid, newfid: free, wname: [] } };
  yield { op: 'lopen', asked: { fid: free, flags: 0 } };
  if (node.type === FILE) {
    for (let at = 0; at <= node.size; at += readBytes)
      yield { op: 'read', asked: { fid: free, offset: at, count: readBytes } };
  } else yield* auditEntries(session, free);
  yield { op: 'clunk', asked: { fid: free } };
  for (const name of node.entries?.keys() ?? []) {
    yield { op: 'walk', asked: { fid, newfid: free, wname: [name] } };
    yield* auditThing(session, free, session.get(free).node, seen, free + 1);
    yield { op: 'clunk', asked: { fid: free } };
  }
}

/** Reads until the end. */
function* auditEntries(session: ModelSession, fid: number): Generator<Request> {
  let offset = { low: 0, high: 0 };
  for (;;) {
    yield { op: 'readdir', asked: { fid, offset, count: readBytes } };
    const open = session.get(fid).open;
    const next = open?.kind === 'dir' ? open.listed.cookie : undefined;
    if (!next || (next.low === offset.low && next.high === offset.high)) return;
    offset = { ...next };
  }
}

function* auditXattrs(session: ModelSession, fid: number, node: ModelNode, free: number): Generator<Request> {
  for (const name of ['', ...node.xattrs.keys()]) {
    yield { op: 'xattrwalk', asked: { fid, newfid: free, name } };
    if (!session.fids.has(free)) continue;
    yield { op: 'read', asked: { fid: free, offset: 0, count: readBytes } };
    yield { op: 'clunk', asked: { fid: free } };
  }
}
