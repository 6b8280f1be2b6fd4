import { type MaybePromise, onError } from '#base/maybe-promise.ts';
import type { Syscalls } from '#host/syscalls.ts';

/** Runs `act` with a new descriptor, and closes it if `act` fails. Otherwise the descriptor is the caller's, or was passed on. */
export function withFd<T>(sys: Syscalls, fd: number, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
  return onError(
    () => act(fd),
    () => sys.close(fd),
  );
}
