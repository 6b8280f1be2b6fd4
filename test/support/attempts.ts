import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Running } from '../program/cli-program.ts';

/**
 * What a guest would do that has taken the server over, as modules that Node loads into the real program before it starts
 * (`--import`): the program itself has no way in. Each attempt runs when the program gets SIGUSR2. With `addon`, the path of
 * `compileRawCalls`, they have `call(number, ...arguments)`, which throws what the kernel says, `tried`, which returns it, and
 * `address(array)`.
 */
export function withAttempts(attempts: Readonly<Record<string, string>>, addon?: string): NodeJS.ProcessEnv {
  const all = Object.entries(attempts).map(
    ([name, code]) => `[${JSON.stringify(name)}, async () => { ${code} }]`,
  );
  const code = `
    import fs from 'node:fs';
    import net from 'node:net';
    import os from 'node:os';
    import { once } from 'node:events';
    const raw = { exports: {} };
    ${addon === undefined ? '' : `process.dlopen(raw, ${JSON.stringify(addon)});`}
    const { call: tried, address } = raw.exports;
    const nameOf = errno => Object.entries(os.constants.errno).find(([, number]) => number === errno)?.[0] ?? errno;
    const call = (...args) => {
      const result = tried(...args);
      if (result < 0) throw Object.assign(new Error(), { code: nameOf(-result) });
      return result;
    };
    process.on('SIGUSR2', async () => {
      const outcome = {};
      for (const [name, attempt] of [${all}]) {
        outcome[name] = await attempt().then(() => 'done', error => error.code ?? error.name);
      }
      process.stderr.write('attempts ' + JSON.stringify(outcome) + '\\n');
    });`;
  return { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(code)}` };
}

/** The outcome of each attempt in a process: `done`, or the error. */
export async function attempted(
  running: Running,
  pid: number = running.child.pid!,
): Promise<Record<string, string>> {
  process.kill(pid, 'SIGUSR2');
  return JSON.parse((await running.says(/^attempts (.*)$/m))[1]!);
}

/** Compiles test/support/raw-calls.c to the path, which must be readable in the sandbox: in an export. */
export function compileRawCalls(path: string): string {
  const headers = join(
    dirname(createRequire(import.meta.url).resolve('node-api-headers/package.json')),
    'include',
  );
  const source = join(import.meta.dirname, 'raw-calls.c');
  execFileSync('gcc', ['-O1', '-shared', '-fPIC', '-isystem', headers, '-o', path, source]);
  return path;
}
