import { defineConfig } from 'vitest/config';

// `unit` is everything that runs on this machine alone, `stress` the short form of what `npm run race`, `crash` and `soak`
// do for long, `guest` boots real kernels.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{unit,protocol,conformance,security}/**/*.test.ts'],
          pool: 'forks',
          // A busy machine takes ten times as long as an idle one.
          testTimeout: 100_000,
          hookTimeout: 100_000,
        },
      },
      {
        test: {
          name: 'stress',
          include: ['test/stress/**/*.test.ts'],
          // Only by `npm run crash -- --guest`.
          exclude: process.env.NINEPD_STRESS === undefined ? ['test/stress/crash-guest.test.ts'] : [],
          pool: 'forks',
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'guest',
          include: ['test/guest/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
