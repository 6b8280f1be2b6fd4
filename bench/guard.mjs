// Regression guard: compares ratios to the C loop with the committed ones.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../scripts/setup.mjs';
import { peers } from './peers.mjs';

const file = join(root, 'bench', 'ratios.json');
/** Allowed fraction of a committed ratio. */
const leastShare = 2 / 3;

/** The best round of each: disturbances only make a round worse. */
const ratio = (mine, other) => Math.max(...mine.rounds) / Math.max(...other.rounds);

function ratiosOf(result) {
  const ours = Object.entries(result).filter(([name]) => peers[name].ours);
  return Object.fromEntries(ours.map(([name, it]) => [name, Number(ratio(it, result.floor).toFixed(3))]));
}

const committed = () => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {});

/** Regressions of a case: a line for each of our servers. */
export function falls(name, result) {
  const before = committed()[name] ?? {};
  return Object.entries(ratiosOf(result))
    .filter(([peer, now]) => now < (before[peer] ?? 0) * leastShare)
    .map(
      ([peer, now]) =>
        `${name}, ${peers[peer].label}: ${now} × the C loop, where ${before[peer]} is committed`,
    );
}

/** Stores this run's ratios; other cases keep theirs. */
export function commitRatios(cases) {
  const ratios = { ...committed() };
  for (const { name, result } of cases) ratios[name] = { ...ratios[name], ...ratiosOf(result) };
  const lines = Object.entries(ratios).map(([name, its]) => {
    const pairs = Object.entries(its).map(([peer, value]) => `${JSON.stringify(peer)}: ${value}`);
    return `  ${JSON.stringify(name)}: { ${pairs.join(', ')} }`;
  });
  writeFileSync(file, `{\n${lines.join(',\n')}\n}\n`);
}
