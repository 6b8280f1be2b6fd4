import { EROFS } from '#base/errno.ts';
import { fid } from '#protocol/kinds.ts';
import { type Op, operations, ops, type TMessage } from '#protocol/operations.ts';
import type { Fids } from './fids.ts';

/**
 * The field with the fid whose export a changing message changes. Not for Tremove, which lets go of its fid even when it
 * is refused.
 */
const changedFid: ReadonlyMap<Op, string> = new Map(
  ops
    .filter(op => 'mutates' in operations[op] && op !== 'remove')
    .map(op => [op, Object.entries(operations[op].T).find(([, kind]) => kind === fid)![0]]),
);

/** EROFS for a message that changes what lies on a read-only export. */
export function refuseToChange<O extends Op>(fids: Fids, op: O, request: TMessage<O>): void {
  const field = changedFid.get(op);
  if (field === undefined) return;
  const number = (request as Readonly<Record<string, unknown>>)[field] as number;
  if (fids.get(number).attachment.readonly) throw EROFS;
}
