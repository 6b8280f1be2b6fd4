import type { VsockAddress } from '#host/vsock.ts';

/** VMADDR_CID_ANY and VMADDR_PORT_ANY of vsock(7). */
export const anyCid = 0xffff_ffff;
export const anyPort = 0xffff_ffff;
/** VMADDR_CID_LOCAL is loopback; VMADDR_CID_HOST is the host as its guests see it. */
export const localCid = 1;
export const hostCid = 2;

/** 9P's registered TCP port. */
export const vsockPortDefault = 564;

/** Parses `CID` or `CID:PORT`, where the CID may be `any`. Returns a string that says what is wrong. */
export function vsockAddress(text: string): VsockAddress | string {
  const [, cid, port = `${vsockPortDefault}`] =
    /^(any|\*|-1|[0-9]{1,10})(?::([0-9]{1,10}))?$/.exec(text) ?? [];
  if (cid === undefined)
    return `a CID is needed, and a port unless it is ${vsockPortDefault}, as in vsock://any:5640`;
  const address = { cid: /^[0-9]/.test(cid) ? Number(cid) : anyCid, port: Number(port) };
  if (address.cid > anyCid) return `there is no CID ${cid}: it has 32 bits`;
  if (address.port >= anyPort) return `there is no port ${port}: the highest is ${anyPort - 1}`;
  return address;
}

export function vsockUri({ cid, port }: VsockAddress): string {
  return `vsock://${cid === anyCid ? 'any' : cid}:${port}`;
}
