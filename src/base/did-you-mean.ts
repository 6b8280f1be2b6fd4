/** Insertions, deletions, replacements and swaps of neighbours that make `b` of `a` (optimal string alignment). */
function edits(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)]);
  for (let j = 1; j <= b.length; j++) rows[0]![j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const replace = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? rows[i - 2]![j - 2]! + 1 : replace;
      rows[i]![j] = Math.min(replace, swap, rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1);
    }
  }
  return rows[a.length]![b.length]!;
}

/** A longer word is no typing error of a known one. */
const lengthMax = 40;

/**
 * For an error text: ` (did you mean "KNOWN"?)` with the known word that is most like `word`, or an empty string if none is. Alike
 * are words with one edit for every three letters, and words of which one begins with the other.
 */
export function didYouMean(word: string, known: readonly string[]): string {
  if (word === '' || word.length > lengthMax) return '';
  const written = word.toLowerCase();
  let best: string | undefined;
  let fewest = Math.max(1, Math.floor(written.length / 3)) + 1;
  for (const one of known) {
    const count = edits(written, one.toLowerCase());
    if (count < fewest) [best, fewest] = [one, count];
  }
  best ??= known.find(one => {
    const [short, long] = [one.toLowerCase(), written].sort((a, b) => a.length - b.length);
    return short!.length > 2 && long!.startsWith(short!);
  });
  return best === undefined ? '' : ` (did you mean "${best}"?)`;
}
