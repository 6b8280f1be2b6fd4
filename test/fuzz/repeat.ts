/**
 * Runs inputs from files: node repeat.js TARGET FILE… For a file that fails, writes the shortest input with the same failure
 * next to it, prints the failure and exits with status 1.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { targets } from './targets.ts';

type Fuzz = (data: Buffer) => void | Promise<void>;

const shrinkMsMax = 60_000;

async function failureOf(fuzz: Fuzz, data: Buffer): Promise<Error | undefined> {
  try {
    await fuzz(data);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** The kind of a failure: its text up to the part that depends on the input. */
function kindOf(failure: Error | undefined): string | undefined {
  return failure?.message.split(/[\d:{["]/, 1)[0];
}

function* shorter(data: Buffer): Generator<Buffer> {
  for (let count = data.length >> 1; count >= 1; count >>= 1)
    for (let at = 0; at + count <= data.length; at += count)
      yield Buffer.concat([data.subarray(0, at), data.subarray(at + count)]);
}

function* plainer(data: Buffer): Generator<Buffer> {
  for (const [at, byte] of data.entries()) {
    for (const other of byte > 1 ? [0, byte >> 1, byte - 1] : byte === 1 ? [0] : []) {
      const copy = Buffer.from(data);
      copy[at] = other;
      yield copy;
    }
  }
}

async function shrink(fuzz: Fuzz, data: Buffer, kind: string | undefined): Promise<Buffer> {
  const end = performance.now() + shrinkMsMax;
  for (let found = true; found; ) {
    found = false;
    for (const ways of [shorter, plainer]) {
      for (const other of ways(data)) {
        if (performance.now() > end) return data;
        if (kindOf(await failureOf(fuzz, other)) !== kind) continue;
        data = other;
        found = true;
        break;
      }
      if (found) break;
    }
  }
  return data;
}

const [name = '', ...files] = process.argv.slice(2);
const fuzz = targets[name];
if (!fuzz) throw new Error(`there is no target ${name}: they are ${Object.keys(targets).join(', ')}`);
let failed = false;
for (const file of files) {
  const data = readFileSync(file);
  const failure = await failureOf(fuzz, data);
  if (!failure) {
    console.log(`${name} stands ${file}`);
    continue;
  }
  failed = true;
  const small = await shrink(fuzz, data, kindOf(failure));
  if (!small.equals(data)) writeFileSync(`${file}.small`, small);
  const last = await failureOf(fuzz, small);
  console.log(
    `${file}: ${data.length} bytes, ${small.length} suffice (${small.toString('hex')})\n${last?.stack}`,
  );
}
process.exit(failed ? 1 : 0);
