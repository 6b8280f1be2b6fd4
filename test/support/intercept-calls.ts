import { EIO } from '#base/errno.ts';
import { commonThreads } from '#host/control-block.ts';
import { inline, Linux } from '#host/linux.ts';
import { diskCalls } from '#host/local.ts';
import { noSession, type Syscalls } from '#host/syscalls.ts';

type CallName = keyof Syscalls;
type Method = (...args: unknown[]) => unknown;

/** Replaces a system call; may make it by `call`, at once or later. */
export type Intercept = (name: CallName, call: () => unknown, args: readonly unknown[]) => unknown;

const nothing = () => undefined;
const { inlineCalls, pooledCalls } = diskCalls(commonThreads, 0, {
  onBlocked: nothing,
  onLate: nothing,
  onFreeing: nothing,
});

const classes = [
  Linux.prototype,
  Object.getPrototypeOf(inline),
  Object.getPrototypeOf(inlineCalls),
  Object.getPrototypeOf(pooledCalls(noSession)),
] as Record<string, unknown>[];

/** Sends every system call of this process through `intercept`, until the returned function is called. */
export function interceptCalls(intercept: Intercept): () => void {
  const undo: (() => void)[] = [];
  for (const one of classes) {
    for (const name of Object.getOwnPropertyNames(one)) {
      const method = one[name];
      if (name === 'constructor' || typeof method !== 'function') continue;
      one[name] = function (this: unknown, ...args: unknown[]) {
        return intercept(name as CallName, () => (method as Method).apply(this, args), args);
      };
      undo.push(() => {
        one[name] = method;
      });
    }
  }
  return () => {
    for (const one of undo) one();
  };
}

/** Runs `act` while the Nth system call, counted from 1, fails with EIO. Resolves to whether it was reached. */
export async function withFault(number: number, act: () => Promise<unknown>): Promise<boolean> {
  let calls = 0;
  const restore = interceptCalls((name, call) => {
    // close(2) frees the descriptor even if it fails.
    if (name !== 'close' && ++calls === number) throw EIO;
    return call();
  });
  try {
    await act();
  } finally {
    restore();
  }
  return calls >= number;
}
