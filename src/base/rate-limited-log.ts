import type { Logger } from './log.ts';

type Level = 'info' | 'warn' | 'error';

/** As many as a guest with several mounts causes when it boots. */
export const linesMax = 20;
/** Places for who is spoken of within a minute; all others share one more. */
export const countersMax = 100;
export const minuteMs = 60_000;

interface Counter {
  readonly level: Level;
  readonly what: string;
  lines: number;
  suppressed: number;
  /** Of those that were not said. */
  last: string;
}

/**
 * A log that those cannot fill who are spoken of, whatever they do: of each, the first lines of a level are said, and once a
 * minute how many more there were, until a minute has none. What it keeps has a bound too. A logger of level debug gets all.
 */
export class RateLimitedLog {
  readonly #log: Logger;
  readonly #counters = new Map<string, Counter>();
  #minutes: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * For all that one peer, or one other cause, brings about. `what` stands in front of a count. Causes of the `settings` are as
   * few as those, and have a place whatever peers do.
   */
  for(what: string, from: 'peer' | 'settings' = 'peer'): Logger {
    const log = this.#log;
    const say = (level: Level, text: string) => this.#write(this.#counterFor(level, what, from), text);
    return {
      trace: text => log.trace(text),
      debug: text => log.debug(text),
      info: text => {
        if (log.isLevelEnabled('info')) say('info', text);
      },
      warn: text => say('warn', text),
      error: text => say('error', text),
      isLevelEnabled: level => log.isLevelEnabled(level),
    };
  }

  #write(place: Counter, text: string): void {
    const log = this.#log;
    if (place.lines < linesMax || log.isLevelEnabled('debug')) {
      place.lines++;
      log[place.level](text);
    } else {
      place.suppressed++;
      place.last = text;
    }
  }

  #counterFor(level: Level, what: string, from: 'peer' | 'settings'): Counter {
    const key = `${level} ${what}`;
    const place = this.#counters.get(key);
    if (place) return place;
    if (from === 'peer' && this.#counters.size >= countersMax)
      return this.#counterFor(level, others, 'settings');
    const added = { level, what, lines: 0, suppressed: 0, last: '' };
    this.#counters.set(key, added);
    this.#minutes ??= setInterval(() => this.#flushCounts(), minuteMs).unref();
    return added;
  }

  #flushCounts(): void {
    for (const [key, place] of this.#counters) {
      if (place.suppressed === 0) this.#counters.delete(key);
      else this.#logCount(place);
    }
    if (this.#counters.size === 0) this.#stop();
  }

  #logCount(place: Counter): void {
    const { level, what, suppressed, last } = place;
    if (suppressed > 0)
      this.#log[level](`${what}: ${suppressed} more of this within a minute, the last: ${last}`);
    place.suppressed = 0;
  }

  #stop(): void {
    clearInterval(this.#minutes);
    this.#minutes = undefined;
  }

  /** Says what is left to count. */
  close(): void {
    for (const place of this.#counters.values()) this.#logCount(place);
    this.#counters.clear();
    this.#stop();
  }
}

const others = 'others';
