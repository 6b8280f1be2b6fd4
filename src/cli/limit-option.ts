import { didYouMean } from '#base/did-you-mean.ts';
import { defaultLimits, type Limits } from '#quota/limits.ts';
import { wholeNumber } from './number-option.ts';

/** The limits by their names on the command line, such as fids-per-session. */
const names = new Map(
  (Object.keys(defaultLimits) as (keyof Limits)[]).map(name => [
    name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`),
    name,
  ]),
);

/** Parses the `NAME=VALUE` of each `--limit`. Calls `problem` for what is wrong. */
export function parseLimits(texts: readonly string[], problem: (text: string) => void): Partial<Limits> {
  const limits: Partial<Record<keyof Limits, number>> = {};
  for (const text of texts) {
    const [written = '', digits = ''] = text.split('=', 2);
    const name = names.get(written);
    const value = wholeNumber(digits);
    if (name === undefined)
      problem(
        `--limit ${text}: there is no such limit${didYouMean(written, [...names.keys()])}: the limits are ${[...names.keys()].join(', ')}`,
      );
    else if (!value) {
      problem(
        `--limit ${text}: a whole number of at least 1 is needed, as in --limit fids-per-session=100000`,
      );
    } else if (limits[name] !== undefined) problem(`--limit ${text}: it is given twice`);
    else limits[name] = value;
  }
  return limits;
}
