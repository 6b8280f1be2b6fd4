import type { Logger } from './log.ts';

type Level = 'info' | 'warn' | 'error';

/** As many as a guest with several mounts causes when it boots. */
export const linesMax = 20;
/** Places for who is spoken of within a minute; all others share one more. */
export const placesMax = 100;
export const minuteMs = 60_000;

interface Place {
  readonly level: Level;
  readonly what: string;
  lines: number;
  unsaid: number;
  /** Of those that were not said. */
  last: string;
}

/**
 * A log that those cannot fill who are spoken of, whatever they do: of each, the first lines of a level are said, and once a
 * minute how many more there were, until a minute has none. What it keeps has a bound too. A logger of level debug gets all.
 */
export class SparingLog {
  readonly #log: Logger;
  readonly #places = new Map<string, Place>();
  #minutes: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** For all that one peer, or one other cause, brings about. `what` stands in front of a count. */
  about(what: string): Logger {
    const log = this.#log;
    return {
      trace: text => log.trace(text),
      debug: text => log.debug(text),
      info: text => {
        if (log.isLevelEnabled('info')) this.#say('info', what, text);
      },
      warn: text => this.#say('warn', what, text),
      error: text => this.#say('error', what, text),
      isLevelEnabled: level => log.isLevelEnabled(level),
    };
  }

  #say(level: Level, what: string, text: string): void {
    const log = this.#log;
    const place = this.#placeOf(level, what);
    if (place.lines < linesMax || log.isLevelEnabled('debug')) {
      place.lines++;
      log[level](text);
    } else {
      place.unsaid++;
      place.last = text;
    }
  }

  #placeOf(level: Level, what: string): Place {
    const key = `${level} ${what}`;
    const place = this.#places.get(key);
    if (place) return place;
    if (this.#places.size >= placesMax && what !== others) return this.#placeOf(level, others);
    const added = { level, what, lines: 0, unsaid: 0, last: '' };
    this.#places.set(key, added);
    this.#minutes ??= setInterval(() => this.#minute(), minuteMs).unref();
    return added;
  }

  #minute(): void {
    for (const [key, place] of this.#places) {
      if (place.unsaid === 0) this.#places.delete(key);
      else this.#count(place);
    }
    if (this.#places.size === 0) this.#stop();
  }

  #count(place: Place): void {
    const { level, what, unsaid, last } = place;
    if (unsaid > 0) this.#log[level](`${what}: ${unsaid} more of this within a minute, the last: ${last}`);
    place.unsaid = 0;
  }

  #stop(): void {
    clearInterval(this.#minutes);
    this.#minutes = undefined;
  }

  /** Says what is left to count. */
  close(): void {
    for (const place of this.#places.values()) this.#count(place);
    this.#places.clear();
    this.#stop();
  }
}

const others = 'others';
