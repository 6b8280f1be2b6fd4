import type { Logger } from '#base/log.ts';

/** A log that puts what is said at any level into `lines`. */
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
