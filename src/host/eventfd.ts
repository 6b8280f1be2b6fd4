import { beginCall, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = shimOf('signal');

/** Adds one to an eventfd. Negative on failure: −errno. */
export function signal(fd: number): number {
  beginCall(op, serverCreds, fd);
  return runInline(raw) as number;
}
