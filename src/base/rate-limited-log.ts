import type { Logger } from './log.ts';

type Level = 'info' | 'warn' | 'error';

/** Lines a minute for each counter: enough for the boot of a guest with several mounts. */
export const linesMax = 20;
/** Number of counters for peers; all other peers share one more for each level. */
export const countersMax = 100;
export const minuteMs = 60_000;

interface Counter {
  readonly level: Level;
  readonly what: string;
  lines: number;
  suppressed: number;
  /** The last suppressed line. */
  last: string;
}

/**
 * Rate-limited logger: the first `linesMax` lines of a peer and level, then one summary a minute until a minute has no more.
 * Bounded memory. Suppresses nothing at level debug or trace.
 */
export class RateLimitedLog {
  readonly #log: Logger;
  readonly #counters = new Map<string, Counter>();
  #minutes: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * A logger for one source, which `what` names in summaries. Sources from the `settings` are few and always have a counter.
   */
  for(what: string, from: 'peer' | 'settings' = 'peer'): Logger {
    const log = this.#log;
    const write = (level: Level, text: string) => this.#write(this.#counterFor(level, what, from), text);
    return {
      trace: text => log.trace(text),
      debug: text => log.debug(text),
      info: text => {
        if (log.isLevelEnabled('info')) write('info', text);
      },
      warn: text => write('warn', text),
      error: text => write('error', text),
      isLevelEnabled: level => log.isLevelEnabled(level),
    };
  }

  #write(counter: Counter, text: string): void {
    const log = this.#log;
    if (counter.lines < linesMax || log.isLevelEnabled('debug')) {
      counter.lines++;
      log[counter.level](text);
    } else {
      counter.suppressed++;
      counter.last = text;
    }
  }

  #counterFor(level: Level, what: string, from: 'peer' | 'settings'): Counter {
    const key = `${level} ${what}`;
    const counter = this.#counters.get(key);
    if (counter) return counter;
    if (from === 'peer' && this.#counters.size >= countersMax)
      return this.#counterFor(level, others, 'settings');
    const added = { level, what, lines: 0, suppressed: 0, last: '' };
    this.#counters.set(key, added);
    this.#minutes ??= setInterval(() => this.#flushCounts(), minuteMs).unref();
    return added;
  }

  #flushCounts(): void {
    for (const [key, counter] of this.#counters) {
      if (counter.suppressed === 0) this.#counters.delete(key);
      else this.#logCount(counter);
    }
    if (this.#counters.size === 0) this.#stop();
  }

  #logCount(counter: Counter): void {
    const { level, what, suppressed, last } = counter;
    if (suppressed > 0)
      this.#log[level](`${what}: ${suppressed} more of this within a minute, the last: ${last}`);
    counter.suppressed = 0;
  }

  #stop(): void {
    clearInterval(this.#minutes);
    this.#minutes = undefined;
  }

  close(): void {
    for (const counter of this.#counters.values()) this.#logCount(counter);
    this.#counters.clear();
    this.#stop();
  }
}

const others = 'others';
