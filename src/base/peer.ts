/** Origin of a connection, from the kernel. Unix: the ids at connect time (SO_PEERCRED). */
export type Origin =
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number }
  | { readonly kind: 'unix'; readonly uid: number; readonly gid: number }
  /** The CID of the virtual machine, which a guest cannot forge. */
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number };

export interface Peer {
  /** For logs: `tcp 127.0.0.1:51234`, `unix pid 4711 uid 1000`, `vsock cid 5 port 1030`. */
  readonly label: string;
  /** For access rules; undefined if unknown, as of a peer that has disconnected. */
  readonly origin?: Origin;
}

/**
 * Key of a peer, for limits and logs: vsock CID, Unix uid, IPv4 address, or IPv6 /64, since a machine chooses the rest of its
 * address freely.
 */
export function peerKey(origin: Origin | undefined): string {
  switch (origin?.kind) {
    case 'tcp':
      return `tcp ${networkOf(origin.address)}`;
    case 'unix':
      return `unix uid ${origin.uid}`;
    case 'vsock':
      return `vsock cid ${origin.cid}`;
    default:
      return 'peers that disconnected at once';
  }
}

function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address;
  const [before = '', after] = address.split('::');
  const groups = before === '' ? [] : before.split(':');
  const last = after === undefined || after === '' ? [] : after.split(':');
  const between = Array<string>(Math.max(0, 8 - groups.length - last.length)).fill('0');
  return `${[...groups, ...between, ...last].slice(0, 4).join(':')}::/64`;
}
