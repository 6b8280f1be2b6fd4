import type { Logger } from '#base/log.ts';

/** A log that appends the lines of every level to `lines`. */
export function logTo(lines: string[]): Logger {
  const add = (text: string) => void lines.push(text);
  return {
    trace: add,
    debug: add,
    info: add,
    warn: add,
    error: add,
    isLevelEnabled: level => level === 'info',
  };
}
