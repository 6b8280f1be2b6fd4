/**
 * Requests that were received together and are answered together. What is worth doing once for all of them is put off until just
 * before the first of their replies leaves: until then nobody knows that anything was done.
 */
let gathering = false;
const due: (() => void)[] = [];

export function beginBatch(): void {
  gathering = true;
}

/** Before replies leave. */
export function runDeferred(): void {
  while (due.length > 0) due.pop()!();
}

export function endBatch(): void {
  gathering = false;
  runDeferred();
}

/** False where no requests are gathered: then it has to be done now. `act` does not throw. */
export function defer(act: () => void): boolean {
  if (gathering) due.push(act);
  return gathering;
}
