/** Options of `npm run race|crash|soak`, from scripts/stress.mjs; none in the short run of `npm test`. */
export interface StressOptions {
  minutes?: number;
  rounds?: number;
  /** Operations per second of all guests in total. */
  rate?: number;
  seed?: number;
  /** Also runs real guests. */
  guest?: boolean;
}

const text = process.env.NINEPD_STRESS;

export const stress: StressOptions = text === undefined ? {} : JSON.parse(text);

/** Whether to print progress. */
export const long = text !== undefined;

export function progress(line: string): void {
  if (long) process.stderr.write(`${line}\n`);
}

export const seed = stress.seed ?? Math.floor(Math.random() * 2 ** 31);
