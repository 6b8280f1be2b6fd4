import { beginCall, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  bind: shimOf('vsockBind'),
  name: shimOf('vsockName'),
  peer: shimOf('vsockPeer'),
};

/** vsock(7): a context id, which is a machine, and a port; both have 32 bits, and 0xffffffff is "any" when binding. */
export interface VsockAddress {
  readonly cid: number;
  readonly port: number;
}

/** A bound stream socket (close-on-exec, non-blocking), or −errno of socket(2) or bind(2). */
export function bindVsock({ cid, port }: VsockAddress): number {
  beginCall(op.bind, serverCreds, cid, port);
  return runInline(raw) as number;
}

/** The address of this end; undefined for a descriptor that is no AF_VSOCK socket. */
export function vsockName(fd: number): VsockAddress | undefined {
  return addressBy(op.name, fd);
}

/** The address of the other end; undefined when it has gone, or the descriptor is no AF_VSOCK socket. */
export function vsockPeer(fd: number): VsockAddress | undefined {
  return addressBy(op.peer, fd);
}

function addressBy(shim: number, fd: number): VsockAddress | undefined {
  const words = new Uint32Array(2);
  beginCall(shim, serverCreds, fd);
  const result = runInline(raw, new Uint8Array(words.buffer)) as number;
  return result < 0 ? undefined : { cid: words[0]!, port: words[1]! };
}
