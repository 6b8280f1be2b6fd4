import { type Answer, attempt } from '../answer.ts';
import type { Syscalls } from '../host/syscalls.ts';

/**
 * Runs `act` with a descriptor that a call has just returned. It is closed when `act` fails, now or later; otherwise it is
 * whoever's `act` has left it to, or the caller's.
 */
export function withFresh<T>(sys: Syscalls, fd: number, act: (fd: number) => Answer<T>): Answer<T> {
  return attempt(
    () => act(fd),
    () => sys.close(fd),
  );
}
