/** What `npm run race|crash|soak` was asked for, by scripts/stress.mjs; `npm test` asks for nothing and gets the short run. */
export interface StressOptions {
  minutes?: number;
  rounds?: number;
  /** Operations per second of all guests together. */
  rate?: number;
  seed?: number;
  /** With real guests too. */
  guest?: boolean;
}

const text = process.env.NINEPD_STRESS;

export const stress: StressOptions = text === undefined ? {} : JSON.parse(text);

/** Whether somebody waits for a long run and wants to see that it goes on. */
export const long = text !== undefined;

export function progress(line: string): void {
  if (long) process.stderr.write(`${line}\n`);
}

export const seed = stress.seed ?? Math.floor(Math.random() * 2 ** 31);
