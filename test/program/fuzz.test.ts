import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { bytesOf } from '../fuzz/choices.ts';
import { targets } from '../fuzz/targets.ts';

const corpus = fileURLToPath(new URL('../fuzz/corpus/', import.meta.url));

/** Seeds of random inputs of up to a kilobyte. */
const seeds = Array.from({ length: 28 }, (_, i) => i + 1);
const inputOf = (seed: number) => bytesOf(seed, 16 * 2 ** (seed % 7));

describe.each(Object.entries(targets))('the fuzzed %s', (name, fuzz) => {
  const files = readdirSync(corpus + name).sort();

  it('has seeds', () => expect(files.length).toBeGreaterThan(0));

  it.each(files)('stands %s of its corpus', async file => {
    await fuzz(readFileSync(`${corpus}${name}/${file}`));
  });

  it.each(seeds)('stands random input %i', async seed => {
    await fuzz(inputOf(seed));
  });
});
