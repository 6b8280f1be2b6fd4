import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { bytesOf } from '../fuzz/choices.ts';
import { targets } from '../fuzz/targets.ts';

const corpus = fileURLToPath(new URL('../fuzz/corpus/', import.meta.url));

/** The same random inputs in every run, most of them short. */
const seeds = Array.from({ length: 100 }, (_, i) => i + 1);

describe.each(Object.entries(targets))('the fuzzed %s', (name, fuzz) => {
  const folder = `${corpus}${name}/`;
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];

  it('has seeds', () => expect(files.length).toBeGreaterThan(0));

  it.each(files)('stands %s of its corpus', async file => {
    await fuzz(readFileSync(folder + file));
  });

  it('stands a fixed set of random inputs', async () => {
    for (const seed of seeds) {
      try {
        await fuzz(bytesOf(seed, 8 * 2 ** (seed % 8)));
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
  });
});
