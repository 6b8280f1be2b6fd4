/** An invalid request of the monitor; its connection is closed. The message says what was wrong. */
export class VhostUserError extends Error {}

/** The vhost-user requests (QEMU's docs/interop/vhost-user.rst) that are implemented. */
export const request = {
  getFeatures: 1,
  setFeatures: 2,
  setOwner: 3,
  resetOwner: 4,
  setMemTable: 5,
  setVringNum: 8,
  setVringAddr: 9,
  setVringBase: 10,
  getVringBase: 11,
  setVringKick: 12,
  setVringCall: 13,
  setVringErr: 14,
  getProtocolFeatures: 15,
  setProtocolFeatures: 16,
  getQueueNum: 17,
  setVringEnable: 18,
  setBackendReqFd: 21,
  getConfig: 24,
  setConfig: 25,
  resetDevice: 34,
  getMaxMemSlots: 36,
  addMemReg: 37,
  remMemReg: 38,
  setStatus: 39,
  getStatus: 40,
} as const;

const names = new Map<number, string>(Object.entries(request).map(([name, number]) => [number, name]));

/** For log lines. */
export function nameOfRequest(number: number): string {
  return names.get(number) ?? `request ${number}`;
}

/** Feature bits. */
export const feature = {
  mountTag: 1n << 0n,
  indirect: 1n << 28n,
  eventIndex: 1n << 29n,
  protocolFeatures: 1n << 30n,
  version1: 1n << 32n,
} as const;

/** Protocol feature bits. */
export const protocolFeature = {
  multiQueue: 1n << 0n,
  replyAck: 1n << 3n,
  backendReq: 1n << 5n,
  config: 1n << 9n,
  resetDevice: 1n << 13n,
  memorySlots: 1n << 15n,
  status: 1n << 16n,
} as const;

export const offeredFeatures =
  feature.mountTag | feature.indirect | feature.eventIndex | feature.protocolFeatures | feature.version1;

/**
 * BACKEND_REQ: no request is ever sent, but Linux's virtio_uml has interrupts only with it.
 * Not offered: INFLIGHT_SHMFD, since a session does not survive its server, and a request without its session has no meaning;
 * LOG_SHMFD, since an open file cannot move to another host.
 */
export const offeredProtocolFeatures =
  protocolFeature.multiQueue |
  protocolFeature.replyAck |
  protocolFeature.backendReq |
  protocolFeature.config |
  protocolFeature.resetDevice |
  protocolFeature.memorySlots |
  protocolFeature.status;

/** request[4] flags[4] size[4] */
export const vhostHeaderBytes = 12;
/** The largest requests are SET_MEM_TABLE with 8 regions, and a configuration space of 256 bytes. */
export const payloadBytesMax = 512;

const versionMask = 3;
const version = 1;
const isReply = 4;
const needsReply = 8;

export interface Header {
  readonly request: number;
  readonly needsReply: boolean;
  readonly payloadBytes: number;
}

export function parseHeader(bytes: Buffer): Header {
  const number = bytes.readUInt32LE(0);
  const flags = bytes.readUInt32LE(4);
  const payloadBytes = bytes.readUInt32LE(8);
  if ((flags & versionMask) !== version || flags & isReply) {
    throw new VhostUserError(`not a vhost-user request of version 1 (flags 0x${flags.toString(16)})`);
  }
  if (payloadBytes > payloadBytesMax) {
    throw new VhostUserError(`${nameOfRequest(number)} of ${payloadBytes} bytes`);
  }
  return { request: number, needsReply: (flags & needsReply) !== 0, payloadBytes };
}

export function reply(number: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(vhostHeaderBytes);
  header.writeUInt32LE(number, 0);
  header.writeUInt32LE(version | isReply, 4);
  header.writeUInt32LE(payload.length, 8);
  return Buffer.concat([header, payload]);
}

export function u64(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** Reads an address or length. No machine has one above 2^53 − 1. */
export function readAddress(bytes: Buffer, at: number): number {
  const value = bytes.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new VhostUserError(`an address of 0x${value.toString(16)}`);
  return Number(value);
}
