import { fuzz as codec } from './targets/codec.ts';
import { fuzz as framer } from './targets/framer.ts';
import { fuzz as options } from './targets/options.ts';

/**
 * What is fuzzed, each with inputs of its own: a function of bytes that throws when something is not as it must be. The
 * file of a target in `targets` has its name, and its seeds and what it has found are in `corpus` below that name.
 */
export const targets: Readonly<Record<string, (data: Buffer) => void | Promise<void>>> = {
  codec,
  framer,
  options,
};
