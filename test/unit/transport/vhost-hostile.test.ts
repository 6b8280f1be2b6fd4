import { ftruncateSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeRequest } from '#protocol/codec.ts';
import { Frontend, feature, INDIRECT, NEXT, WRITE } from '../../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';

const base = 0x100000;
const megabyte = 1 << 20;
const version = encodeRequest('version', 0xffff, { msize: 8192, version: '9P2000.L' });

/** Violations of virtio by a guest, and the expected part of the log line. */
const attacks: readonly [title: string, named: RegExp, attack: (guest: Frontend) => void][] = [
  [
    'a chain that runs in a circle',
    /in a circle/,
    guest => {
      guest.describe(0, { address: guest.put(version), length: version.length, flags: NEXT, next: 1 });
      guest.describe(1, { address: base + 0x20000, length: 8, flags: NEXT, next: 0 });
      guest.offer(0);
    },
  ],
  [
    'a descriptor whose next is itself',
    /in a circle/,
    guest => {
      guest.describe(5, { address: base + 0x20000, length: 8, flags: NEXT | WRITE, next: 5 });
      guest.offer(5);
    },
  ],
  ['a head beyond the table', /descriptor 200 of a ring of 128/, guest => guest.offer(200)],
  [
    'a chain that continues beyond the table',
    /goes on at descriptor 60000 of 128/,
    guest => {
      guest.describe(0, { address: base + 0x20000, length: 8, flags: NEXT, next: 60_000 });
      guest.offer(0);
    },
  ],
  [
    'an available index that jumps',
    /claims 998 requests/,
    guest => guest.memory.writeUInt16LE(1000, guest.at(guest.available) + 2),
  ],
  [
    'an available index that goes back',
    /claims 65533 requests/,
    guest => guest.memory.writeUInt16LE(0xffff, guest.at(guest.available) + 2),
  ],
  [
    'an address outside of memory',
    /at 0x10 lies outside/,
    guest => void guest.chain([{ address: 0x10, length: 64 }], []),
  ],
  [
    'an address of 64 bits',
    /lies outside/,
    guest => void guest.chain([{ address: Number.MAX_SAFE_INTEGER, length: 64 }], []),
  ],
  [
    'a buffer that ends beyond memory',
    /lies outside/,
    guest => void guest.chain([{ address: base + 4 * megabyte - 8, length: 16 }], []),
  ],
  [
    'a buffer of four gigabytes',
    /lies outside/,
    guest => void guest.chain([{ address: base, length: 0xffff_ffff }], []),
  ],
  [
    'a buffer to write that ends beyond memory',
    /lies outside/,
    guest =>
      void guest.chain(
        [{ address: guest.put(version), length: version.length }],
        [{ address: base + 4 * megabyte - 4, length: 8192 }],
      ),
  ],
  ['a buffer of no bytes', /of no bytes/, guest => void guest.chain([{ address: base, length: 0 }], [])],
  [
    'a buffer to read behind one to write',
    /to read behind one to write/,
    guest =>
      void guest.chain(
        [
          { address: base + 0x30000, length: 64, flags: WRITE },
          { address: guest.put(version), length: version.length },
        ],
        [],
      ),
  ],
  [
    'an indirect table inside an indirect table',
    /inside an indirect table/,
    guest => void guest.chain([{ address: base, length: 16, flags: INDIRECT }], [], true),
  ],
  [
    'an indirect table with a descriptor behind it',
    /with a descriptor behind it/,
    guest => {
      guest.describe(0, { address: base, length: 16, flags: INDIRECT | NEXT, next: 1 });
      guest.offer(0);
    },
  ],
  [
    'an indirect table of half a descriptor',
    /table of 24 bytes/,
    guest => {
      guest.describe(0, { address: base, length: 24, flags: INDIRECT });
      guest.offer(0);
    },
  ],
  [
    'an endless indirect table',
    /table of 1048576 bytes/,
    guest => {
      guest.describe(0, { address: base, length: megabyte, flags: INDIRECT });
      guest.offer(0);
    },
  ],
  [
    'an indirect table outside of memory',
    /table lies outside/,
    guest => {
      guest.describe(0, { address: 0x20, length: 32, flags: INDIRECT });
      guest.offer(0);
    },
  ],
  [
    'an indirect table that runs in a circle',
    /in a circle/,
    guest => {
      const table = guest.put(
        Buffer.concat([
          guest.encode({ address: base, length: 1, flags: NEXT, next: 1 }),
          guest.encode({ address: base, length: 1, flags: NEXT, next: 0 }),
        ]),
      );
      guest.describe(0, { address: table, length: 32, flags: INDIRECT });
      guest.offer(0);
    },
  ],
  [
    'an indirect table that continues beyond its end',
    /goes on at descriptor 2 of 2/,
    guest => {
      const table = guest.put(
        Buffer.concat([
          guest.encode({ address: base, length: 1, flags: NEXT, next: 2 }),
          guest.encode({ address: base, length: 1 }),
        ]),
      );
      guest.describe(0, { address: table, length: 32, flags: INDIRECT });
      guest.offer(0);
    },
  ],
  [
    'a message without a header',
    /a request of 6 bytes/,
    guest => void guest.chain([{ address: guest.put(version), length: 6 }], []),
  ],
  [
    'a chain with nothing to read',
    /a request of 0 bytes/,
    guest => void guest.chain([], [{ address: base + 0x30000, length: 64 }]),
  ],
  [
    'a message that is longer than its buffers',
    /a message of 21 bytes in 20 bytes/,
    guest => void guest.chain([{ address: guest.put(version), length: 20 }], []),
  ],
  [
    'a message with a size of 0',
    /a message of 0 bytes/,
    guest => void guest.chain([{ address: guest.put(Buffer.alloc(64)), length: 64 }], []),
  ],
  [
    'a message of a megabyte that is no write',
    /that is no Twrite/,
    guest => {
      const frame = Buffer.alloc(megabyte);
      frame.writeUInt32LE(megabyte, 0);
      frame.writeUInt8(110, 4);
      guest.chain([{ address: guest.put(frame), length: megabyte }], [{ address: base, length: 64 }]);
    },
  ],
  [
    'no room even for an error',
    /a reply of 21 bytes for 10 bytes/,
    guest =>
      void guest.chain(
        [{ address: guest.put(version), length: version.length }],
        [{ address: base + 0x30000, length: 10 }],
      ),
  ],
];

describe('a guest that violates virtio', () => {
  let served: Served;
  let guest: Frontend;

  beforeEach(async () => {
    served = await serveDirectory();
    guest = await Frontend.connect(served.path);
    await guest.start();
  });
  afterEach(async () => {
    guest.close();
    await served.close();
    for (const session of served.sessions) expect(session.counts().fids).toBe(0);
  });

  async function broken(named: RegExp): Promise<void> {
    for (let i = 0; i < 200 && guest.errors === 0; i++) await new Promise(resolve => setTimeout(resolve, 5));
    expect(served.complaints).toHaveLength(1);
    expect(served.complaints[0]).toMatch(named);
    expect(guest.errors).toBe(1);
    // Later requests are ignored.
    guest.offer(0);
    guest.kick();
    await new Promise(resolve => setTimeout(resolve, 10));
    expect(served.complaints).toHaveLength(1);
  }

  async function startsAnew(): Promise<void> {
    await guest.stopRing();
    guest.forget();
    await guest.startRing();
    await guest.attach();
  }

  it.each(attacks)('loses its device until a reset by %s', async (_, named, attack) => {
    await guest.attach();
    guest.takeUsed();
    attack(guest);
    guest.kick();
    await broken(named);
    served.complaints.length = 0;
    await startsAnew();
    expect(served.complaints).toEqual([]);
  });

  it('loses its device by an indirect table that was not negotiated', async () => {
    guest.close();
    await new Promise(resolve => setTimeout(resolve, 20));
    guest = await Frontend.connect(served.path, {
      features: feature.version1 | feature.protocolFeatures | feature.mountTag,
    });
    await guest.start();
    guest.chain([{ address: guest.put(version), length: version.length }], [], true);
    guest.kick();
    await broken(/was not agreed on/);
  });

  it('gets a reply to the message that was checked, when it changes the message meanwhile', async () => {
    await guest.attach();
    const frame = encodeRequest('clunk', 9, { fid: 1234 });
    const address = guest.put(frame);
    const reply = guest.room(64);
    guest.chain([{ address, length: frame.length }], [{ address: reply, length: 64 }]);
    guest.kick();
    // The reply has the tag that was read first, whatever the guest's memory holds by then.
    const writing = setInterval(() => guest.memory.writeUInt16LE(0xbeef, guest.at(address) + 5), 0);
    await guest.usedOf(1);
    clearInterval(writing);
    expect([9, 0xbeef]).toContain(guest.read(reply, 11).readUInt16LE(5));
  });

  it('harms no other guest by truncating the file of its memory', async () => {
    const other = await serveDirectory({ tag: 'other' });
    const neighbour = await Frontend.connect(other.path);
    await neighbour.start();
    await neighbour.attach();
    await guest.attach();
    guest.chain(
      [{ address: guest.put(version), length: version.length }],
      [{ address: base + 0x30000, length: 64 }],
    );
    ftruncateSync(guest.file, 0);
    guest.kick();
    for (let i = 0; i < 200 && guest.errors === 0; i++) await new Promise(resolve => setTimeout(resolve, 5));
    expect(served.complaints.join()).toMatch(/cut short/);
    await neighbour.attach();
    expect(other.complaints).toEqual([]);
    neighbour.close();
    await other.close();
  });
});

describe('buffers that cross the end of a region', () => {
  const regions = [
    { guestAddress: base, bytes: megabyte, monitorAddress: 0x7f00_0000_0000, fileOffset: 0 },
    {
      guestAddress: base + megabyte,
      bytes: megabyte,
      monitorAddress: 0x7f10_0000_0000,
      fileOffset: 2 * megabyte,
    },
  ];

  it('continue in the adjacent region if there is one', async () => {
    const served = await serveDirectory();
    const guest = await Frontend.connect(served.path, { regions });
    await guest.start();
    const border = base + megabyte;
    const from = border - 10;
    guest.write(from, version.subarray(0, 10));
    guest.write(border, version.subarray(10));
    const reply = guest.room(64);
    guest.chain([{ address: from, length: version.length }], [{ address: reply, length: 64 }]);
    guest.kick();
    await guest.usedOf(1);
    expect(guest.read(reply, 21).toString('latin1', 13)).toBe('9P2000.L');
    guest.close();
    await served.close();
    expect(served.complaints).toEqual([]);
  });
});
