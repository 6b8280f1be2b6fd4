/**
 * The libuv handle of a socket or server. Node has no public name for it, nor for its descriptor; `_handle` is the same in
 * Node 20 to 26. No other module uses it.
 */
import type { Server, Socket } from 'node:net';

export interface Handle {
  readonly fd: number;
}

interface Owner {
  _handle: Handle | null;
}

/** Null after the socket was closed. */
export function handleOf(owner: Socket | Server): Handle | null {
  return (owner as unknown as Owner)._handle;
}

/** The descriptor of an open socket or server, or −1. Read it each time: a closed one's number may be that of another file. */
export function fdOf(owner: Socket | Server): number {
  return handleOf(owner)?.fd ?? -1;
}

/** Detaches the handle from an accepted socket, since only a new `net.Socket` can be given a buffer to read into. */
export function takeHandle(socket: Socket): Handle {
  const handle = handleOf(socket)!;
  (socket as unknown as Owner)._handle = null;
  // Closes nothing, as the handle is detached; net.Server.close waits for this socket's end.
  socket.destroy();
  return handle;
}
