/** The kind of a failure: its text up to the part that depends on the input. */
export function kindOf(message: string): string {
  return message.split(/[\d:{["]/, 2).join(':');
}

/**
 * Removes steps that the failure does not need, in pieces of decreasing size, while `fails` is true for the rest. Stops at
 * `end` (performance.now()).
 */
export async function shrink<T>(
  steps: readonly T[],
  fails: (steps: readonly T[]) => Promise<boolean>,
  end: number,
): Promise<readonly T[]> {
  let left = steps;
  for (let size = left.length >> 1; size >= 1; ) {
    let removed = false;
    for (let at = 0; at < left.length && performance.now() < end; ) {
      const without = [...left.slice(0, at), ...left.slice(at + size)];
      if (await fails(without)) {
        left = without;
        removed = true;
      } else at += size;
    }
    if (size === 1 && !removed) break;
    if (!removed || size > 1) size = Math.max(1, size >> 1);
    if (performance.now() >= end) break;
  }
  return left;
}
