/** Logger of the server. Loggers of pino and its like implement it. */
export interface Logger {
  trace(text: string): void;
  debug(text: string): void;
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
  /** Whether the level is enabled; callers skip building the text otherwise. */
  isLevelEnabled(level: 'trace' | 'debug' | 'info'): boolean;
}

const ignore = (): void => undefined;

export const silent: Logger = {
  trace: ignore,
  debug: ignore,
  info: ignore,
  warn: ignore,
  error: ignore,
  isLevelEnabled: () => false,
};
