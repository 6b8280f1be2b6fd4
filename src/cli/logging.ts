import { pino } from 'pino';
import { prettyFactory } from 'pino-pretty';
import type { Logger } from '#base/log.ts';
import type { LogLevel } from './options.ts';

/**
 * Writes human-readable lines to standard error, synchronously, so that none is lost at exit. `prefix` starts each message.
 */
export function makeLogger(level: LogLevel, prefix = ''): Logger {
  const pretty = prettyFactory({
    colorize: process.stderr.isTTY === true,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'pid,hostname',
  });
  const write = (line: string) => void process.stderr.write(pretty(line) ?? '');
  return pino({ level, msgPrefix: prefix }, { write });
}
