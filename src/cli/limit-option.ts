import { didYouMean } from '#base/did-you-mean.ts';
import { defaultLimits, type Limits } from '#quota/limits.ts';

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
    const [, written = text, digits] = /^([^=]*)=([0-9]{1,15})$/.exec(text) ?? [];
    const key = written.replace(/=.*$/, '');
    const name = names.get(key);
    if (name === undefined) {
      const known = [...names.keys()];
      problem(
        `--limit ${text}: there is no such limit${didYouMean(key, known)}: the limits are ${known.join(', ')}`,
      );
    } else if (digits === undefined || Number(digits) === 0) {
      problem(
        `--limit ${text}: a whole number of at least 1 is needed, as in --limit fids-per-session=100000`,
      );
    } else if (limits[name] !== undefined) problem(`--limit ${text}: it is given twice`);
    else limits[name] = Number(digits);
  }
  return limits;
}
