let end = 0;
let polling = false;

const poll = (): void => {
  polling = performance.now() < end;
  if (polling) setImmediate(poll);
};

/**
 * Keeps the event loop polling without sleep for `ms` milliseconds: on virtual processors, and on those that sleep deeply, a
 * wake-up costs more than most requests.
 */
export function busyPoll(ms: number): void {
  end = Math.max(end, performance.now() + ms);
  if (polling) return;
  polling = true;
  setImmediate(poll);
}
