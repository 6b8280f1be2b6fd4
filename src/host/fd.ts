import {
  beginCall,
  expectCount,
  onThreads,
  raw,
  runInline,
  shimOf,
  unknownFsThreads,
} from './control-block.ts';
import { noSession, serverCreds } from './syscalls.ts';

const op = {
  close: shimOf('close'),
  duplicate: shimOf('duplicate'),
  kindOfDescriptor: shimOf('kindOfDescriptor'),
};

const onUnknownFs = onThreads(unknownFsThreads, noSession);

/** close(2). Never throws. */
export function closeFd(fd: number): void {
  beginCall(op.close, serverCreds, fd);
  runInline(raw);
}

/**
 * close(2) on a thread that may never return: of a descriptor that a peer has passed, or that may hold such ones or a peer's
 * memory. Never rejects.
 */
export function closeOnPool(fd: number): void {
  beginCall(op.close, serverCreds, fd);
  void onUnknownFs(raw);
}

/** What a descriptor is that a peer has passed: `memory` of tmpfs or hugetlbfs, an `event` (eventfd(2), pipe(2)), a `socket`. */
export type DescriptorKind = 'memory' | 'event' | 'socket' | 'else';
const kinds: readonly DescriptorKind[] = ['else', 'memory', 'event', 'socket'];

/** Asks no file system, so that it returns at once whatever the descriptor is. */
export function kindOfDescriptor(fd: number): DescriptorKind {
  beginCall(op.kindOfDescriptor, serverCreds, fd);
  return kinds[runInline(raw) as number] ?? 'else';
}

/** fcntl(2) with F_DUPFD_CLOEXEC. */
export function dupCloexec(fd: number): number {
  beginCall(op.duplicate, serverCreds, fd);
  return runInline(expectCount) as number;
}
