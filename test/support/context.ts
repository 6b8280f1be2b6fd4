import type { CallContext, ChangeObserver } from '#backend/tree.ts';
import type { Credentials } from '#host/syscalls.ts';
import { PinnedFds } from '#quota/pinned-fds.ts';

const silent: ChangeObserver = { before: () => undefined, after: () => undefined };

/** The context of calls of a tree without a session. */
export function contextOf(creds: Credentials, observer = silent): CallContext {
  const queue = 0;
  return { session: { observer, pins: new PinnedFds(), queue }, creds, queue, defer: () => false };
}
