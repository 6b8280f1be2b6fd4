import { beginCall, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  bind: shimOf('vsockBind'),
  name: shimOf('vsockName'),
  peer: shimOf('vsockPeer'),
};

/** vsock(7): a context id, which identifies a machine, and a port. Both are 32 bits; 0xffffffff means any when binding. */
export interface VsockAddress {
  readonly cid: number;
  readonly port: number;
}

/** A bound stream socket (close-on-exec, non-blocking), or −errno of socket(2) or bind(2). */
export function bindVsock({ cid, port }: VsockAddress): number {
  beginCall(op.bind, serverCreds, cid, port);
  return runInline(raw) as number;
}

/** getsockname(2); undefined if the descriptor is not an AF_VSOCK socket. */
export function vsockName(fd: number): VsockAddress | undefined {
  return addressOf(op.name, fd);
}

/** getpeername(2); undefined if the peer has closed or the descriptor is not an AF_VSOCK socket. */
export function vsockPeer(fd: number): VsockAddress | undefined {
  return addressOf(op.peer, fd);
}

function addressOf(shim: number, fd: number): VsockAddress | undefined {
  const words = new Uint32Array(2);
  beginCall(shim, serverCreds, fd);
  const result = runInline(raw, new Uint8Array(words.buffer)) as number;
  return result < 0 ? undefined : { cid: words[0]!, port: words[1]! };
}
