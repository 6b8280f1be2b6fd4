/** Where the server says what happens. pino's loggers fit; a library user may bring any other. */
export interface Logger {
  trace(text: string): void;
  debug(text: string): void;
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
  /** Whether the level is printed, so that a text nobody reads need not be made. */
  isLevelEnabled(level: 'trace' | 'debug' | 'info'): boolean;
}

const nothing = (): void => undefined;

/** Says nothing. */
export const silent: Logger = {
  trace: nothing,
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  isLevelEnabled: () => false,
};
