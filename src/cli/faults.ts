import type { Logger } from '#base/log.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';

/** Grace period for running requests after the first signal: less than the 10 s of container managers. */
export const graceMsMax = 8_000;

/** Installs handlers so that an error caused by one guest does not end the service for the others. */
export function surviveFaults(log: Logger): void {
  // The reader of standard error has closed it.
  process.stderr.on('error', () => undefined);
  // A write beyond RLIMIT_FSIZE then fails with EFBIG instead of ending the process: setrlimit(2).
  process.on('SIGXFSZ', () => undefined);
  // Rate-limited, since a guest may trigger the same bug repeatedly.
  const bugs = new RateLimitedLog(log).for('bugs', 'settings');
  process.on('unhandledRejection', error =>
    bugs.error(`a bug: ${error instanceof Error ? error.stack : error}`),
  );
}
