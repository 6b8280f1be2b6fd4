import { Errno } from '#base/errno.ts';
import { addon } from './addon.ts';
import { EPOLL_READY_MAX } from './constants.ts';

type Ready = () => void;

const ids = new Uint32Array(EPOLL_READY_MAX);
const watched = new Map<number, Ready>();
let lastId = 0;

/** An earlier callback may have stopped a later one. */
function callReady(count: number): void {
  for (const id of ids.slice(0, count)) watched.get(id)?.();
}

const epoll = addon.watch(ids.buffer as ArrayBuffer, callReady);

/**
 * Calls `ready` while the descriptor is readable or its peer has closed; with `edge`, once for each write to it, and it need
 * not be read (EPOLLET). Returns a function that stops it, to be called before the descriptor is closed. Throws the Errno of
 * epoll_ctl(2): EPERM for a regular file.
 */
export function watchFd(fd: number, ready: Ready, edge = false): () => void {
  if (epoll === undefined)
    throw new Error('The native addon has no epoll instance: out of descriptors or memory.');
  lastId = (lastId + 1) >>> 0;
  const id = lastId;
  const failed = epoll.add(fd, id, edge);
  if (failed !== 0) throw Errno.of(-failed);
  watched.set(id, ready);
  return () => {
    if (watched.delete(id)) epoll.remove(fd);
  };
}
