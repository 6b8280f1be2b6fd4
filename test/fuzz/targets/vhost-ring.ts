/** Arbitrary queue content: another device is not affected, and a reset repairs this one. */
import { encodeRequest } from '../../../src/protocol/codec.ts';
import { Frontend, INDIRECT, NEXT, WRITE } from '../../support/vhost-frontend.ts';
import { Choices } from '../choices.ts';
import { turn, withNeighbour } from '../vhost-neighbour.ts';

const base = 0x100000;
const stepsPerReset = 30;

function anyDescriptor(guest: Frontend, choices: Choices): void {
  const addresses = [
    ...[
      base,
      base + choices.below(4 << 20),
      base + (4 << 20) - choices.below(64),
      choices.u32() >>> 1,
      2 ** 52,
    ],
  ];
  guest.describe(choices.below(guest.size), {
    address: choices.of(addresses),
    length: choices.of([0, 1, 7, 16, 32, 64, 4096, 1 << 20, 0xffff_ffff]),
    flags: choices.of([0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, choices.below(65_536)]),
    next: choices.rarely(8) ? choices.below(65_536) : choices.below(guest.size),
  });
}

function anyFrame(choices: Choices): Buffer {
  const tag = choices.below(65_535);
  const fid = choices.below(3);
  const frames = [
    () => encodeRequest('version', 0xffff, { msize: choices.below(2 ** 20), version: '9P2000.L' }),
    () => encodeRequest('walk', tag, { fid, newfid: choices.below(3), wname: [] }),
    () => encodeRequest('lopen', tag, { fid, flags: choices.below(4) }),
    () => encodeRequest('readdir', tag, { fid, offset: { low: 0, high: 0 }, count: choices.below(9000) }),
    () => encodeRequest('write', tag, { fid, offset: 0, data: { count: 5, bytes: Buffer.from('bytes') } }),
    () => encodeRequest('read', tag, { fid, offset: 0, count: choices.below(9000) }),
    () => encodeRequest('lcreate', tag, { fid, name: 'f', flags: 2, mode: 0o644, gid: 0 }),
    () => encodeRequest('flush', tag, { oldtag: choices.below(65_535) }),
  ];
  const frame = Buffer.from(choices.of(frames)());
  if (choices.rarely(4)) frame[choices.below(frame.length)] = choices.byte();
  return frame;
}

function anyMessage(guest: Frontend, choices: Choices): void {
  const frame = anyFrame(choices);
  if (guest.spare < 5) guest.reclaim();
  const cut = 1 + choices.below(frame.length);
  const readable = choices.rarely(2)
    ? [frame]
    : [frame.subarray(0, cut), frame.subarray(cut)].filter(one => one.length > 0);
  const writable = Array.from({ length: choices.below(4) }, () => ({
    address: guest.room(4096),
    length: 1 + choices.below(4096),
  }));
  guest.chain(
    readable.map(bytes => ({ address: guest.put(bytes), length: bytes.length })),
    writable,
    choices.rarely(2),
  );
}

async function step(guest: Frontend, choices: Choices): Promise<void> {
  const what = choices.below(10);
  if (what < 5) anyMessage(guest, choices);
  else if (what < 8) anyDescriptor(guest, choices);
  else if (what === 8) guest.offer(choices.below(choices.rarely(2) ? guest.size : 65_536));
  else guest.memory.fill(choices.byte(), choices.below(1 << 16), choices.below(1 << 16));
  if (choices.rarely(3)) guest.kick();
  if (choices.rarely(3)) await turn();
}

export async function fuzz(data: Buffer): Promise<void> {
  const choices = new Choices(data);
  await withNeighbour(async served => {
    const guest = await Frontend.connect(served.path, { size: 2 ** (3 + choices.below(5)) });
    try {
      await guest.start();
      do {
        await guest.attach();
        for (let i = 0; i < stepsPerReset && !choices.done; i++) await step(guest, choices);
        await guest.stopRing();
        guest.forget();
        await guest.startRing();
      } while (!choices.done);
      await guest.attach();
    } finally {
      guest.close();
    }
  });
}
