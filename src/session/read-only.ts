import { EROFS } from '#base/errno.ts';
import { fid } from '#protocol/kinds.ts';
import { type Op, operations, ops, type TMessage } from '#protocol/operations.ts';
import type { Fids } from './fids.ts';

/**
 * For each mutating message, the field with the fid whose export must be writable. Tremove is missing: it clunks its fid even
 * when it fails, so its handler checks.
 */
const changedFid: ReadonlyMap<Op, string> = new Map(
  ops
    .filter(op => 'mutates' in operations[op] && op !== 'remove')
    .map(op => [op, Object.entries(operations[op].T).find(([, kind]) => kind === fid)![0]]),
);

/** Throws EROFS for a mutating message on a read-only export, EBADF for an unknown fid. */
export function refuseToChange<O extends Op>(fids: Fids, op: O, request: TMessage<O>): void {
  const field = changedFid.get(op);
  if (field === undefined) return;
  const number = (request as Readonly<Record<string, unknown>>)[field] as number;
  if (fids.get(number).attachment.readonly) throw EROFS;
}
