import type { IdRange, OwnerRanges } from '#host/syscalls.ts';

/** The largest id: −1 means "unchanged" to chown(2). */
export const idMax = 0xffff_fffe;

interface Range {
  readonly kinds: 'u' | 'g' | 'b';
  readonly guest: number;
  readonly host: number;
  readonly count: number;
}

type Kind = 'u' | 'g';

/** Maps the ids of one kind (users or groups) between guest and host. */
export class IdMap {
  readonly #ranges: readonly Range[];

  private constructor(ranges: readonly Range[]) {
    this.#ranges = ranges;
  }

  /**
   * Requires ranges without problems. No ranges at all is the identity; ranges of one kind only leave the other kind
   * unmapped.
   */
  static of(texts: readonly string[], kind: Kind): IdMap {
    if (texts.length === 0) return new IdMap([{ kinds: 'b', guest: 0, host: 0, count: idMax + 1 }]);
    return new IdMap(
      texts.map(rangeOf).filter(range => typeof range !== 'string' && range.kinds !== other[kind]) as Range[],
    );
  }

  /** The mapped ids of the host. */
  get hostRanges(): IdRange[] {
    return this.#ranges.map(({ host, count }) => ({ first: host, count }));
  }

  /** The host's id for the guest's; undefined if unmapped. */
  toHost(id: number): number | undefined {
    for (const { guest, host, count } of this.#ranges) {
      if (id >= guest && id < guest + count) return host + (id - guest);
    }
    return undefined;
  }

  /** The guest's id for the host's; undefined if unmapped. */
  toGuest(id: number): number | undefined {
    for (const { guest, host, count } of this.#ranges) {
      if (id >= host && id < host + count) return guest + (id - host);
    }
    return undefined;
  }
}

/** Whether an object of this owner and group is one of those. */
export function rangesHave(over: 'all' | OwnerRanges, uid: number, gid: number): boolean {
  return over === 'all' || (isIn(over.uids, uid) && isIn(over.gids, gid));
}

function isIn(ranges: readonly IdRange[], id: number): boolean {
  return ranges.some(({ first, count }) => id >= first && id < first + count);
}

const other = { u: 'g', g: 'u' } as const;

/** Problems of the ranges, each with what to do. */
export function mapProblems(texts: readonly string[]): string[] {
  const ranges = texts.map(rangeOf);
  const problems = ranges.filter(range => typeof range === 'string');
  const good = ranges.filter(range => typeof range !== 'string');
  for (const [index, one] of good.entries()) {
    for (const earlier of good.slice(0, index)) {
      if (earlier.kinds !== 'b' && one.kinds !== 'b' && earlier.kinds !== one.kinds) continue;
      for (const side of ['guest', 'host'] as const) {
        if (one[side] >= earlier[side] + earlier.count || earlier[side] >= one[side] + one.count) continue;
        problems.push(
          `map=${textOf(one)} and map=${textOf(earlier)} both have id ${Math.max(one[side], earlier[side])} of the ${side}: ` +
            'each id has one counterpart',
        );
      }
    }
  }
  return problems;
}

function textOf({ kinds, guest, host, count }: Range): string {
  return `${kinds === 'b' ? '' : `${kinds}:`}${guest}:${host}:${count}`;
}

/** Parses a range. Returns a string that says what is wrong with it. */
function rangeOf(text: string): Range | string {
  const [, kinds = 'b', ...numbers] =
    /^(?:([ugb]):)?([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})$/.exec(text) ?? [];
  if (numbers.length === 0) {
    return `map=${text} is no range: write map=GUEST:HOST:COUNT, as in map=0:100000:65536, or map=u:… or map=g:… for one kind`;
  }
  const [guest, host, count] = numbers.map(Number) as [number, number, number];
  if (count === 0) return `map=${text} has no ids: the last number is how many there are`;
  if (Math.max(guest, host) + count - 1 > idMax) return `map=${text} goes beyond the largest id, ${idMax}`;
  return { kinds: kinds as Range['kinds'], guest, host, count };
}
