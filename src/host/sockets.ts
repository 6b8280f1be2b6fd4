import { beginCall, expectCount, expectVoid, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  isListening: shimOf('isListening'),
  datagramTo: shimOf('datagramTo'),
  socketPair: shimOf('socketPair'),
  refuseDescriptors: shimOf('refuseDescriptors'),
};

/** SO_ACCEPTCONN of a stream socket; undefined for any other descriptor. */
export function isListening(fd: number): boolean | undefined {
  beginCall(op.isListening, serverCreds, fd);
  const result = runInline(raw) as number;
  return result < 0 ? undefined : result === 1;
}

/** A datagram socket connected to a Unix socket; a path that begins with `@` is abstract. Throws the Errno of connect(2). */
export function datagramTo(path: string): number {
  beginCall(op.datagramTo, serverCreds, 0, 0, 0, Buffer.from(path).toString('latin1'));
  return runInline(expectCount) as number;
}

/** socketpair(2) of Unix sockets with SOCK_SEQPACKET. */
export function socketPair(): [number, number] {
  const ends = new Int32Array(2);
  beginCall(op.socketPair, serverCreds);
  runInline(expectVoid, new Uint8Array(ends.buffer));
  return [ends[0]!, ends[1]!];
}

/**
 * Has the kernel refuse descriptors in messages (SO_PASSRIGHTS = 0, Linux 6.16) on this Unix socket and those accepted from
 * it. Without the option, and for other kinds of socket, does nothing.
 */
export function refuseDescriptors(fd: number): void {
  beginCall(op.refuseDescriptors, serverCreds, fd);
  runInline(raw);
}
