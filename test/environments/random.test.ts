import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bytesOf, Choices } from '../fuzz/choices.ts';
import type { Sequence, Step } from '../fuzz/sequences.ts';
import { type Backend, backends } from '../support/backends.ts';
import type { Serving } from '../support/serve.ts';
import { kindOf, shrink } from './shrink.ts';
import { type Failure, TempExport } from './temp-export.ts';

/** Options of `npm run random`: duration, first seed, steps of a sequence. */
interface Options {
  readonly minutes?: number;
  readonly seed?: number;
  readonly steps?: number;
}
const options: Options = JSON.parse(process.env.NINEPD_RANDOM ?? '{}');

const sequences = 3;
const seedsUsual = 4;
const stepsUsual = 250;
const firstSeed = options.seed ?? 1;
const stepsMax = options.steps ?? stepsUsual;
/** Upper bound of the bytes that the choices of one step use. */
const bytesPerStep = 24;
const shrinkMsMax = options.minutes === undefined ? 20_000 : 120_000;
const triesTogether = 3;

/** The steps of one sequence for a seed. */
function chosenBy(seed: number, index: number): (sequence: Sequence) => Step | undefined {
  const choices = new Choices(bytesOf(seed * sequences + index, stepsMax * bytesPerStep));
  let count = 0;
  return sequence => (count++ < stepsMax && !choices.done ? sequence.next(choices) : undefined);
}

/** Replays recorded steps. */
function given(steps: readonly Step[]): () => Step | undefined {
  let at = 0;
  return () => steps[at++];
}

class Runner {
  readonly #exports: readonly TempExport[];

  constructor(all: readonly TempExport[]) {
    this.#exports = all;
  }

  /** Runs all sequences concurrently. Throws the first failure, with a reduced sequence that reproduces it. */
  async run(seed: number, name: string): Promise<void> {
    const results = await Promise.all(this.#exports.map((one, i) => one.run(chosenBy(seed, i))));
    const failed = results.findIndex(result => result !== undefined);
    if (failed < 0) return;
    const { message, steps } = results[failed]!;
    const { small, alone } = await this.#shrink(seed, failed, results[failed]!);
    const count = `${steps.length} steps, of which ${small.steps.length} suffice`;
    const where = alone ? 'also alone' : `only beside ${sequences - 1} other sequences`;
    const again = `npm run random -- --environment ${name} --seed ${seed}`;
    const first = message.split('\n', 1)[0];
    throw new Error(
      `seed ${seed}, sequence ${failed}: ${first}\n${count}, ${where}. To repeat it: ${again}\n${small.message}`,
    );
  }

  async #shrink(seed: number, index: number, failure: Failure): Promise<{ small: Failure; alone: boolean }> {
    const end = performance.now() + shrinkMsMax;
    const kind = kindOf(failure.message);
    let small = failure;
    const remember = (result: Failure | undefined) => {
      if (!result || kindOf(result.message) !== kind) return false;
      if (result.steps.length <= small.steps.length) small = result;
      return true;
    };
    const byItself = async (steps: readonly Step[]) =>
      remember(await this.#exports[index]!.run(given(steps)));
    const together = async (steps: readonly Step[]) => {
      for (let i = 0; i < triesTogether; i++) {
        const all = this.#exports.map((one, at) => one.run(at === index ? given(steps) : chosenBy(seed, at)));
        if (remember((await Promise.all(all))[index])) return true;
      }
      return false;
    };
    const alone = await byItself(failure.steps);
    await shrink(failure.steps, alone ? byItself : together, end);
    return { small, alone };
  }
}

function randomly(backend: Backend): void {
  let serving: Serving;
  let runner: Runner;
  const names = Array.from({ length: sequences }, (_, i) => `export-${i}`);

  beforeAll(async () => {
    serving = await backend.serve(names);
    runner = new Runner(names.map(name => new TempExport(name, serving, backend)));
  });
  afterAll(async () => {
    await serving.close();
  });

  const check = async (seed: number) => {
    await runner.run(seed, backend.name);
    expect(serving.errors).toEqual([]);
  };
  if (options.minutes === undefined) {
    const seeds = Array.from({ length: seedsUsual }, (_, i) => firstSeed + i);
    it.each(seeds)('get the answers of the model, seed %i', check);
    return;
  }
  const minutes = options.minutes / backends.length;
  it(`get the answers of the model for ${minutes.toFixed(1)} minutes`, { timeout: 2 ** 31 - 1 }, async () => {
    const end = performance.now() + minutes * 60_000;
    for (let seed = firstSeed; performance.now() < end; seed++) await check(seed);
  });
}

describe.each(backends)('random operations ($name)', randomly);
