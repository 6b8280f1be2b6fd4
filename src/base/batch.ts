/**
 * A batch of requests received together. Work needed once for a batch is deferred until just before its first reply is sent: no
 * effect is visible earlier.
 */
let batching = false;
const deferred: (() => void)[] = [];

export function beginBatch(): void {
  batching = true;
}

/** Runs deferred work. Called before replies are sent. */
export function runDeferred(): void {
  while (deferred.length > 0) deferred.pop()!();
}

export function endBatch(): void {
  batching = false;
  runDeferred();
}

/** Defers `act`, which must not throw. False outside a batch: the caller then runs it now. */
export function defer(act: () => void): boolean {
  if (batching) deferred.push(act);
  return batching;
}
