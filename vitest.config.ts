import { basename } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Two guest files run at a time, and both are to end together: those that take long begin first. */
const longGuestFiles = [
  'vsock',
  'data',
  'vhost-user',
  'hybrid-vsock',
  'names',
  'faults',
  'mounts',
  'ownership',
  'locks',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ project, moduleId }: TestSpecification) => {
      if (project.name !== 'guest') return -1;
      const at = longGuestFiles.indexOf(basename(moduleId, '.test.ts'));
      return at < 0 ? longGuestFiles.length : at;
    };
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}

// `unit` needs neither root nor another process, `program` runs the program and uses mounts and users of this machine, `stress` is
// the short form of `npm run race`, `crash` and `soak`, `guest` boots real kernels.
export default defineConfig({
  // Subpath imports (package.json) lead to the sources; in the built program they lead to dist.
  resolve: { alias: [{ find: /^#(.*)$/, replacement: `${import.meta.dirname}/src/$1` }] },
  test: {
    // Memory that a request must not use any more is overwritten (src/transport/poison.ts), in spawned servers too.
    env: { NINEPD_POISON: '1' },
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          pool: 'forks',
          // Vitest leaves a processor free by default. These tests wait more than they compute.
          maxWorkers: 2,
          testTimeout: 30_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'program',
          include: ['test/{program,conformance}/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 2,
          // A busy machine takes ten times as long as an idle one.
          testTimeout: 100_000,
          hookTimeout: 100_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'environments',
          include: ['test/{conformance,environments}/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 100_000,
          hookTimeout: 100_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'package',
          // `release` needs cross compilers: it runs only by `npm test -- release`.
          include: [
            `test/${process.env.NINEPD_RELEASE === undefined ? 'package' : '{package,release}'}/**/*.test.ts`,
          ],
          pool: 'forks',
          maxWorkers: 1,
          testTimeout: 300_000,
          // Packs, and installs what was packed.
          hookTimeout: 600_000,
          sequence: { groupOrder: 3 },
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
        extends: true,
        test: {
          name: 'guest',
          include: ['test/guest/**/*.test.ts'],
          pool: 'forks',
          // A guest and its server keep one processor busy: they take turns.
          maxWorkers: 2,
          // After the other projects, which may have another number of workers.
          sequence: { groupOrder: 1 },
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
