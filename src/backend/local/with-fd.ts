import { type MaybePromise, onError } from '#base/maybe-promise.ts';
import type { Syscalls } from '#host/syscalls.ts';

/**
 * Runs `act` with a descriptor that a call has just returned. It is closed when `act` fails, now or later; otherwise it is
 * whoever's `act` has left it to, or the caller's.
 */
export function withFd<T>(sys: Syscalls, fd: number, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
  return onError(
    () => act(fd),
    () => sys.close(fd),
  );
}
