import type { Logger } from '#base/log.ts';
import { type LogLevel, logLevels } from './options.ts';

/** SGR colours of console_codes(4), for a terminal. */
const colours: Readonly<Partial<Record<LogLevel, number>>> = {
  trace: 90,
  debug: 34,
  info: 32,
  warn: 33,
  error: 31,
};

/**
 * Writes lines `[HH:MM:SS] LEVEL: text` to standard error, which Node writes synchronously (process I/O), so that none is lost at
 * exit. `prefix` starts each text.
 */
export function makeLogger(least: LogLevel, prefix = ''): Logger {
  const isTerminal = process.stderr.isTTY === true;
  const isLevelEnabled = (level: LogLevel) => logLevels.indexOf(level) >= logLevels.indexOf(least);
  const at = (level: LogLevel) => {
    if (!isLevelEnabled(level)) return () => undefined;
    const name = isTerminal ? `\x1b[${colours[level]}m${level.toUpperCase()}\x1b[0m` : level.toUpperCase();
    return (text: string) => void process.stderr.write(`[${timeOfDay()}] ${name}: ${prefix}${text}\n`);
  };
  return {
    ...{ trace: at('trace'), debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') },
    isLevelEnabled,
  };
}

/** HH:MM:SS, local. */
function timeOfDay(): string {
  return new Date().toTimeString().slice(0, 8);
}
