import { asItIs, atOnce, begin, count, nothing, shimOf } from './control.ts';
import { serverCaller } from './syscalls.ts';

const op = {
  isListening: shimOf('isListening'),
  datagramTo: shimOf('datagramTo'),
  channel: shimOf('channel'),
  sendMessage: shimOf('sendMessage'),
};

/** Whether a descriptor is a listening stream socket; undefined when it is no stream socket at all. */
export function isListening(fd: number): boolean | undefined {
  begin(op.isListening, serverCaller, fd);
  const result = atOnce(value => value) as number;
  return result < 0 ? undefined : result === 1;
}

/** A socket for datagrams to a Unix socket; a path that begins with `@` is abstract. Throws the Errno of connect(2). */
export function datagramTo(path: string): number {
  begin(op.datagramTo, serverCaller, 0, 0, 0, Buffer.from(path).toString('latin1'));
  return atOnce(count) as number;
}

/** The two ends of a socket that keeps messages apart and carries descriptors: SOCK_SEQPACKET of unix(7). */
export function socketPair(): [number, number] {
  const ends = new Int32Array(2);
  begin(op.channel, serverCaller);
  atOnce(nothing, new Uint8Array(ends.buffer));
  return [ends[0]!, ends[1]!];
}

/** sendmsg(2) of bytes alone, without waiting. Returns the bytes that were sent, or −errno. */
export function send(fd: number, bytes: Uint8Array): number {
  begin(op.sendMessage, serverCaller, fd);
  return atOnce(asItIs, bytes) as number;
}
