import { MESSAGE_FDS_MAX } from './constants.ts';
import { beginCall, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = { receiveMessage: shimOf('receiveMessage'), sendMessage: shimOf('sendMessage') };

const received = new Uint32Array(1 + MESSAGE_FDS_MAX);
const receivedBytes = new Uint8Array(received.buffer);

/** recv(2), without blocking. Returns the count of bytes, 0 when the peer has closed, or −errno. */
export function receive(fd: number, into: Uint8Array): number {
  beginCall(op.receiveMessage, serverCreds, fd);
  return runInline(raw, into) as number;
}

/**
 * recvmsg(2), without blocking. Appends descriptors of the message to `fds`; they are close-on-exec and non-blocking, and
 * the caller closes them, with `closeOnPool`. Returns the count of bytes, 0 when the peer has closed, or −errno: EPROTO for more than
 * MESSAGE_FDS_MAX descriptors.
 */
export function receiveMessage(fd: number, into: Uint8Array, fds: number[]): number {
  received[0] = 0;
  beginCall(op.receiveMessage, serverCreds, fd);
  const result = runInline(raw, [into, receivedBytes]) as number;
  for (let i = 1; i <= received[0]; i++) fds.push(received[i]!);
  return result;
}

/** sendmsg(2), without blocking. Returns the count of bytes sent, or −errno. */
export function sendMessage(fd: number, bytes: Uint8Array, fds?: readonly number[]): number {
  const data = fds === undefined ? bytes : [bytes, new Uint8Array(Uint32Array.from(fds).buffer)];
  beginCall(op.sendMessage, serverCreds, fd);
  return runInline(raw, data) as number;
}
