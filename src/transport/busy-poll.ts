let end = 0;
let looking = false;

const look = (): void => {
  looking = performance.now() < end;
  if (looking) setImmediate(look);
};

/**
 * For so many milliseconds the event loop looks for events without going to sleep: to be woken costs more than most requests
 * do, where processors sleep deeply or are virtual ones.
 */
export function busyPoll(ms: number): void {
  end = Math.max(end, performance.now() + ms);
  if (looking) return;
  looking = true;
  setImmediate(look);
}
