import { beginCall, expectCount, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = { close: shimOf('close'), duplicate: shimOf('duplicate') };

/** close(2). Never throws. */
export function closeFd(fd: number): void {
  beginCall(op.close, serverCreds, fd);
  runInline(raw);
}

/** fcntl(2) with F_DUPFD_CLOEXEC. */
export function dupCloexec(fd: number): number {
  beginCall(op.duplicate, serverCreds, fd);
  return runInline(expectCount) as number;
}
