import { beginCall, expectCount, runInline, shimOf } from '#host/control-block.ts';
import { serverCreds } from '#host/syscalls.ts';

const op = shimOf('eventfd');

/** eventfd(2), non-blocking and close-on-exec. The caller closes it. */
export function eventfd(): number {
  beginCall(op, serverCreds);
  return runInline(expectCount) as number;
}
