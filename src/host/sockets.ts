import { beginCall, expectCount, expectVoid, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  isListening: shimOf('isListening'),
  datagramTo: shimOf('datagramTo'),
  channel: shimOf('channel'),
  sendMessage: shimOf('sendMessage'),
  receiveMessage: shimOf('receiveMessage'),
  refuseDescriptors: shimOf('refuseDescriptors'),
};

/** Whether a descriptor is a listening stream socket; undefined when it is no stream socket at all. */
export function isListening(fd: number): boolean | undefined {
  beginCall(op.isListening, serverCreds, fd);
  const result = runInline(value => value) as number;
  return result < 0 ? undefined : result === 1;
}

/** A socket for datagrams to a Unix socket; a path that begins with `@` is abstract. Throws the Errno of connect(2). */
export function datagramTo(path: string): number {
  beginCall(op.datagramTo, serverCreds, 0, 0, 0, Buffer.from(path).toString('latin1'));
  return runInline(expectCount) as number;
}

/** The two ends of a socket that keeps messages apart and carries descriptors: SOCK_SEQPACKET of unix(7). */
export function socketPair(): [number, number] {
  const ends = new Int32Array(2);
  beginCall(op.channel, serverCreds);
  runInline(expectVoid, new Uint8Array(ends.buffer));
  return [ends[0]!, ends[1]!];
}

/** recv(2), without waiting: the bytes of one message, 0 when the other side has gone, or −errno. */
export function receive(fd: number, into: Uint8Array): number {
  beginCall(op.receiveMessage, serverCreds, fd);
  return runInline(raw, into) as number;
}

/**
 * From now on the kernel takes no descriptors that come with bytes (SO_PASSRIGHTS = 0, Linux 6.16), on this Unix socket and on
 * those accepted from it. A kernel without the option, or another kind of socket, is no error.
 */
export function refuseDescriptors(fd: number): void {
  beginCall(op.refuseDescriptors, serverCreds, fd);
  runInline(raw);
}

/** sendmsg(2) of bytes alone, without waiting. Returns the bytes that were sent, or −errno. */
export function send(fd: number, bytes: Uint8Array): number {
  beginCall(op.sendMessage, serverCreds, fd);
  return runInline(raw, bytes) as number;
}
