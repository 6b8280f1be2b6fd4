import { BlockList, isIPv4, isIPv6, SocketAddress } from 'node:net';
import type { Origin, Peer } from '#base/peer.ts';

/** Who may attach to an export. Without any option, every peer that can connect. */
export interface AccessOptions {
  /**
   * Only peers that match one of these rules. `cid:5` or `cid:any`: a virtual machine, by its vsock. `uid:1000`, `gid:1000`: the
   * peer of a Unix socket, by its uid or primary gid. `tcp:10.0.0.0/8`, `tcp:fd00::/8`, `tcp:192.0.2.7`: an address.
   */
  readonly allow?: readonly string[];
  /** Over TCP and vsock, only peers with a port below 1024: a guest's kernel has one, its users cannot. */
  readonly privport?: boolean;
}

type Test = (origin: Origin) => boolean;

const portsPrivileged = 1024;
const idMax = 0xffff_fffe;

/** The forms of a rule, for error texts. */
const forms = 'cid:NUMBER, cid:any, uid:NUMBER, gid:NUMBER, tcp:ADDRESS or tcp:ADDRESS/PREFIX';

/** Problems of the rules, each with what to do. */
export function accessProblems({ allow }: AccessOptions): string[] {
  if (allow?.length === 0)
    return ['allow names nobody, so that no guest may attach: leave it out, or name one'];
  return (allow ?? []).map(testOf).filter(test => typeof test === 'string');
}

/** The rules of one export. */
export class Access {
  readonly #tests: readonly Test[];
  readonly #allow: readonly string[];
  readonly #privport: boolean;

  /** Requires rules without problems. */
  constructor({ allow = [], privport = false }: AccessOptions = {}) {
    this.#allow = allow;
    this.#tests = allow.map(testOf).filter(test => typeof test !== 'string');
    this.#privport = privport;
  }

  /** Why the peer may not attach, for the host's log; undefined if it may. */
  refusal({ origin }: Peer): string | undefined {
    const restricted = this.#tests.length > 0;
    if (!restricted && !this.#privport) return undefined;
    if (!origin) return 'its origin is unknown';
    if (restricted && !this.#tests.some(test => test(origin))) {
      return `${textOf(origin)} is not among allow=${this.#allow.join(',allow=')}`;
    }
    if (this.#privport && origin.kind !== 'unix' && origin.port >= portsPrivileged) {
      return `port ${origin.port} is one that any program could have (privport=on)`;
    }
    return undefined;
  }
}

function textOf(origin: Origin): string {
  switch (origin.kind) {
    case 'tcp':
      return `tcp:${plainAddress(origin.address)}`;
    case 'unix':
      return `uid:${origin.uid} gid:${origin.gid}`;
    case 'vsock':
      return `cid:${origin.cid}`;
  }
}

/** Parses a rule. Returns a string that says what is wrong with it. */
function testOf(text: string): Test | string {
  const [, kind, value] = /^(cid|uid|gid|tcp):(.*)$/.exec(text) ?? [];
  if (kind === undefined || value === undefined) return `allow=${text} names nobody: say ${forms}`;
  if (kind === 'tcp') return addressTest(value);
  if (kind === 'cid' && value === 'any') return origin => origin.kind === 'vsock';
  const id = /^[0-9]{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (!(id <= idMax)) return `allow=${text} is no ${kind}: write a number, as in allow=${kind}:1000`;
  if (kind === 'cid') return origin => origin.kind === 'vsock' && origin.cid === id;
  if (kind === 'uid') return origin => origin.kind === 'unix' && origin.uid === id;
  return origin => origin.kind === 'unix' && origin.gid === id;
}

function addressTest(text: string): Test | string {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^[\]/]*))(?:\/([0-9]{1,3}))?$/.exec(text) ?? [];
  const written = bracketed ?? plain ?? '';
  const v6 = isIPv6(written);
  if ((!v6 && !isIPv4(written)) || written.includes('%')) {
    return `allow=tcp:${text} is no address: write allow=tcp:10.0.0.0/8, allow=tcp:192.0.2.7 or allow=tcp:fd00::/8`;
  }
  const bitsMax = v6 ? 128 : 32;
  const bits = digits === undefined ? bitsMax : Number(digits);
  if (bits > bitsMax) return `allow=tcp:${text} has no such prefix: ${written} has ${bitsMax} bits`;
  const address = v6
    ? plainAddress(new SocketAddress({ address: written, family: 'ipv6' }).address)
    : written;
  // An IPv4-mapped address has a prefix of 96 bits.
  const isMapped = v6 && isIPv4(address) && bits >= 96;
  const list = new BlockList();
  if (isMapped) list.addSubnet(address, bits - 96, 'ipv4');
  else list.addSubnet(written, bits, v6 ? 'ipv6' : 'ipv4');
  const family = v6 && !isMapped ? 'ipv6' : 'ipv4';
  return origin => {
    if (origin.kind !== 'tcp') return false;
    const from = plainAddress(origin.address);
    return isIPv4(from) === (family === 'ipv4') && list.check(from, family);
  };
}

/** Canonical form for comparison: without a zone, and an IPv4-mapped address (from a dual-stack socket) as IPv4. */
function plainAddress(address: string): string {
  const withoutZone = address.replace(/%.*$/, '');
  const mapped = /^::ffff:([0-9.]+)$/i.exec(withoutZone)?.[1];
  return mapped !== undefined && isIPv4(mapped) ? mapped : withoutZone;
}
