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

  /**
   * For all that one peer, or one other cause, brings about. `what` stands in front of a count. Causes of the `settings` are as
   * few as those, and have a place whatever peers do.
   */
  about(what: string, from: 'peer' | 'settings' = 'peer'): Logger {
    const log = this.#log;
    const say = (level: Level, text: string) => this.#say(this.#placeOf(level, what, from), text);
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

  #say(place: Place, text: string): void {
    const log = this.#log;
    if (place.lines < linesMax || log.isLevelEnabled('debug')) {
      place.lines++;
      log[place.level](text);
    } else {
      place.unsaid++;
      place.last = text;
    }
  }

  #placeOf(level: Level, what: string, from: 'peer' | 'settings'): Place {
    const key = `${level} ${what}`;
    const place = this.#places.get(key);
    if (place) return place;
    if (from === 'peer' && this.#places.size >= placesMax) return this.#placeOf(level, others, 'settings');
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
