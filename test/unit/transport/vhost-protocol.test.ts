import { closeSync, openSync, readdirSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { endpointOf, uriOf } from '#transport/endpoint.ts';
import { guestHint, monitorHint, tagError } from '#transport/vhost-user/tag.ts';
import { eventfd } from '../../support/eventfd.ts';
import {
  Frontend,
  feature,
  Monitor,
  memoryFile,
  protocolFeature,
  regionBytes,
  request,
  u32,
  u64,
} from '../../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';

const megabyte = 1 << 20;
const region = { guestAddress: 0, bytes: megabyte, monitorAddress: 0x7f00_0000_0000, fileOffset: 0 };
const add = (change: Partial<typeof region>) =>
  Buffer.concat([u64(0), regionBytes({ ...region, ...change })]);
const tableOf = (...bytes: Buffer[]) => Buffer.concat([u32(bytes.length, 0), ...bytes]);

let served: Served;
let monitor: Monitor;
let memory: number;

const settled = () => new Promise(resolve => setTimeout(resolve, 20));

beforeEach(async () => {
  served = await serveDirectory();
  monitor = await Monitor.connect(served.path);
  memory = memoryFile(2 * megabyte);
});
afterEach(async () => {
  monitor.close();
  closeSync(memory);
  await served.close();
});

/** Invalid requests of a monitor, and the expected part of the log line. */
const faults: readonly [title: string, named: RegExp, say: () => void][] = [
  ['a request that is not known', /request 99, which is not offered/, () => monitor.tell(99)],
  ['a request that is known and not offered', /request 6, /, () => monitor.tell(6, u64(0, 0))],
  ['another version', /version 1 \(flags 0x2\)/, () => monitor.tell(request.getFeatures, u64(), [], 2)],
  ['a reply', /version 1 \(flags 0x5\)/, () => monitor.tell(request.getFeatures, u64(), [], 5)],
  ['too long a payload', /of 4294967295 bytes/, () => monitor.raw(u32(request.setFeatures, 1, 0xffff_ffff))],
  ['too short a payload', /setFeatures of 4 bytes/, () => monitor.tell(request.setFeatures, u32(0))],
  [
    'a payload for a request without one',
    /getFeatures of 8 bytes/,
    () => monitor.tell(request.getFeatures, u64(0)),
  ],
  ['features that are not offered', /features 0x2, /, () => monitor.tell(request.setFeatures, u64(2))],
  [
    'protocol features that are not offered',
    /protocol features 0x8000000000000000, /,
    () => monitor.tell(request.setProtocolFeatures, u64(1n << 63n)),
  ],
  ['a queue of size 0', /of 0 descriptors/, () => monitor.tell(request.setVringNum, u32(0, 0))],
  [
    'a queue of size 100',
    /of 100 descriptors: a power of two/,
    () => monitor.tell(request.setVringNum, u32(0, 100)),
  ],
  ['a queue of size 2048', /power of two up to 1024/, () => monitor.tell(request.setVringNum, u32(0, 2048))],
  ['a second queue', /virtqueue 1: .*num_vqs=1/, () => monitor.tell(request.setVringNum, u32(1, 128))],
  ['a kick of a second queue', /virtqueue 3/, () => monitor.tell(request.setVringKick, u64(3), [memory])],
  ['an index beyond 16 bits', /index 65536/, () => monitor.tell(request.setVringBase, u32(0, 65_536))],
  [
    'an address of 64 bits',
    /an address of 0xff/,
    () => monitor.tell(request.setVringAddr, u64(0, -1n, 0, 0, 0)),
  ],
  ['a kick descriptor that is not passed', /not passed/, () => monitor.tell(request.setVringKick, u64(0))],
  ['no kick descriptor', /without a kick descriptor/, () => monitor.tell(request.setVringKick, u64(0x100))],
  [
    'a kick descriptor that is memory',
    /no eventfd/,
    () => monitor.tell(request.setVringKick, u64(0), [memory]),
  ],
  [
    'a table that ends within a region',
    /table of 1 regions in 56 bytes/,
    () =>
      monitor.tell(request.setMemTable, Buffer.concat([tableOf(regionBytes(region)), Buffer.alloc(16)]), [
        memory,
      ]),
  ],
  [
    'a table that is shorter than its count of regions',
    /table of 2 regions in 40 bytes/,
    () => monitor.tell(request.setMemTable, Buffer.concat([u32(2, 0), regionBytes(region)]), [memory]),
  ],
  [
    'a table of 200 regions',
    /table of 200 regions/,
    () => monitor.tell(request.setMemTable, Buffer.concat([u32(200, 0), Buffer.alloc(64)])),
  ],
  [
    'a table without descriptors',
    /1 regions with 0 descriptors/,
    () => monitor.tell(request.setMemTable, tableOf(regionBytes(region))),
  ],
  ['a region without a descriptor', /with 0 descriptors/, () => monitor.tell(request.addMemReg, add({}))],
  [
    'a region with two',
    /with 2 descriptors/,
    () => monitor.tell(request.addMemReg, add({}), [memory, memory]),
  ],
  [
    'a region of no bytes',
    /begin and end with a page/,
    () => monitor.tell(request.addMemReg, add({ bytes: 0 }), [memory]),
  ],
  [
    'a region that begins within a page',
    /begin and end with a page/,
    () => monitor.tell(request.addMemReg, add({ guestAddress: 512 }), [memory]),
  ],
  [
    'a region at an unaligned offset of its file',
    /begin and end with a page/,
    () => monitor.tell(request.addMemReg, add({ fileOffset: 100 }), [memory]),
  ],
  [
    'a region beyond its file',
    /ends beyond its file/,
    () => monitor.tell(request.addMemReg, add({ bytes: 4 * megabyte }), [memory]),
  ],
  [
    'a region at the end of the address space',
    /beyond what addresses can reach/,
    () => monitor.tell(request.addMemReg, add({ guestAddress: Number.MAX_SAFE_INTEGER - 4095 }), [memory]),
  ],
  [
    'memory that is no file',
    /is no memfd .*memory-backend-memfd/,
    () => monitor.tell(request.addMemReg, add({}), [monitor.descriptor]),
  ],
  [
    'memory that may not be written to',
    /cannot be mapped: EACCES/,
    () => {
      const readonly = openSync(`/proc/self/fd/${memory}`, 'r');
      monitor.tell(request.addMemReg, add({}), [readonly]);
      closeSync(readonly);
    },
  ],
  [
    'regions that overlap in the guest',
    /overlap in the guest/,
    () => {
      monitor.tell(request.addMemReg, add({}), [memory]);
      monitor.tell(request.addMemReg, add({ guestAddress: 4096, monitorAddress: 0x7e00_0000_0000 }), [
        memory,
      ]);
    },
  ],
  [
    'regions that overlap in the monitor',
    /overlap in the monitor/,
    () => {
      monitor.tell(request.addMemReg, add({}), [memory]);
      monitor.tell(request.addMemReg, add({ guestAddress: 16 * megabyte }), [memory]);
    },
  ],
  [
    'removal of a region that was never added',
    /was never added/,
    () => monitor.tell(request.remMemReg, add({})),
  ],
  [
    'too long a configuration',
    /of 300 bytes/,
    () => monitor.tell(request.getConfig, Buffer.concat([u32(0, 300, 0), Buffer.alloc(300)])),
  ],
  [
    'a configuration request without its bytes',
    /configuration space/,
    () => monitor.tell(request.getConfig, u32(0, 64, 0)),
  ],
];

/** Descriptors are closed on a pool thread. */
const descriptorCount = () => readdirSync('/proc/self/fd').length;

describe('a monitor with an invalid request', () => {
  it.each(faults)('is disconnected for %s', async (_, named, say) => {
    const held = readdirSync('/proc/self/fd').length;
    say();
    await monitor.closed();
    expect(served.complaints).toHaveLength(1);
    expect(served.complaints[0]).toMatch(named);
    expect(served.complaints[0]).toMatch(/refused: .*; the connection is closed$/);
    // One fewer: the device's end of the socket. No passed descriptor stays open.
    await expect.poll(descriptorCount).toBe(held - 1);
    const guest = await Frontend.connect(served.path);
    await guest.start();
    await guest.attach();
    guest.close();
  });

  it('is disconnected for moving a running queue', async () => {
    const guest = await Frontend.connect(served.path);
    await guest.monitor.closed();
    guest.close();
    monitor.close();
    const runs = await Frontend.connect(served.path);
    await runs.start();
    runs.used += 4096;
    runs.monitor.tell(request.setVringAddr, runs.ringAddresses());
    await runs.monitor.closed();
    expect(served.complaints.join()).toMatch(/a running virtqueue is moved/);
    runs.close();
    monitor = await Monitor.connect(served.path);
  });

  it('may pause within a message, and its surplus descriptors are closed', async () => {
    const held = readdirSync('/proc/self/fd').length;
    monitor.raw(u32(request.addMemReg), [memory]);
    await settled();
    monitor.raw(u32(1, 40), [memory]);
    await settled();
    monitor.raw(add({}).subarray(0, 20));
    await settled();
    await expect.poll(descriptorCount).toBe(held + 2);
    monitor.raw(add({}).subarray(20));
    await monitor.closed();
    expect(served.complaints.join()).toMatch(/with 2 descriptors/);
    await expect.poll(descriptorCount).toBe(held - 1);
  });
});

describe('a user-mode Linux', () => {
  it('sends a table with room for two regions, and a pipe for requests, which stays open', async () => {
    const pipe = eventfd();
    const held = readdirSync('/proc/self/fd').length;
    monitor.tell(request.setProtocolFeatures, u64(protocolFeature.backendReq | protocolFeature.config));
    monitor.tell(request.setBackendReqFd, Buffer.alloc(0), [pipe]);
    monitor.tell(request.setBackendReqFd, Buffer.alloc(0), [pipe]);
    const table = Buffer.concat([tableOf(regionBytes(region)), Buffer.alloc(32)]);
    monitor.tell(request.setMemTable, table, [memory]);
    await monitor.ask(request.getFeatures);
    await expect.poll(descriptorCount).toBe(held + 1);
    expect(served.complaints).toEqual([]);
    monitor.tell(99);
    await monitor.closed();
    await expect.poll(descriptorCount).toBe(held - 1);
    closeSync(pipe);
  });
});

describe('the configuration space', () => {
  const ask = (offset: number, size: number) =>
    monitor.ask(request.getConfig, Buffer.concat([u32(offset, size, 0), Buffer.alloc(size)]));

  it('holds the tag after its length, then zeros', async () => {
    const config = await ask(0, 60);
    expect(config.subarray(12).toString('latin1')).toBe(`\x05\0share${'\0'.repeat(53)}`);
  });

  it('may be read in parts', async () => {
    expect((await ask(0, 2)).subarray(12).toString('hex')).toBe('0500');
    expect((await ask(4, 3)).subarray(12).toString('latin1')).toBe('are');
    expect((await ask(200, 4)).subarray(12).toString('hex')).toBe('00000000');
  });

  it('may be read in pieces that all begin at its start', async () => {
    for (const size of [2, 3, 4, 5, 6, 7]) {
      const config = (await ask(0, size)).subarray(12);
      expect(config.toString('latin1')).toBe('\x05\0share'.slice(0, size));
    }
    expect(served.complaints).toEqual([]);
  });

  it('that is too small for the tag is refused, and what to change is logged once', async () => {
    expect(await ask(0, 6)).toHaveLength(0);
    expect(await ask(0, 6)).toHaveLength(0);
    expect(served.complaints).toHaveLength(1);
    expect(served.complaints[0]).toMatch(
      /the tag does not fit into a configuration space of 6 bytes: .*config_size=7/,
    );
    expect((await ask(0, 7)).subarray(14).toString('latin1')).toBe('share');
  });

  it('cannot be written to', async () => {
    monitor.tell(request.setConfig, Buffer.concat([u32(0, 4, 0), Buffer.from('evil')]));
    expect((await ask(0, 7)).subarray(12).toString('latin1')).toBe('\x05\0share');
  });

  it('is reported missing when the monitor does not ask for it', async () => {
    monitor.tell(request.setProtocolFeatures, u64(protocolFeature.replyAck));
    await monitor.ask(request.getFeatures);
    expect(served.complaints.join()).toMatch(/does not ask for the configuration space, .*config_size=7/);
  });

  it('is reported missing for a monitor without protocol features', async () => {
    monitor.close();
    await settled();
    const features = feature.version1 | feature.indirect;
    const guest = await Frontend.connect(served.path, { features });
    const { monitor: plain } = guest;
    plain.tell(request.setFeatures, u64(features));
    plain.tell(request.setMemTable, tableOf(regionBytes(guest.regions[0]!)), [guest.file]);
    plain.tell(request.setVringNum, u32(0, guest.size));
    plain.tell(request.setVringBase, u32(0, 0));
    plain.tell(request.setVringAddr, guest.ringAddresses());
    plain.tell(request.setVringCall, u64(0), [guest.callDescriptor]);
    plain.tell(request.setVringKick, u64(0), [guest.kickDescriptor]);
    await guest.attach();
    expect(served.complaints.join()).toMatch(/does not ask for the configuration space/);
    guest.close();
    monitor = await Monitor.connect(served.path);
  });
});

describe('a monitor without shared memory', () => {
  it('gets the missing option in the log', async () => {
    monitor.close();
    await settled();
    const guest = await Frontend.connect(served.path);
    await guest.negotiate();
    await guest.startRing();
    guest.kick();
    for (let i = 0; i < 200 && guest.errors === 0; i++) await settled();
    expect(served.complaints.join()).toMatch(/share all of it \(QEMU: -object memory-backend-memfd,share=on/);
    guest.close();
    monitor = await Monitor.connect(served.path);
  });
});

describe('the hints for monitor and guest', () => {
  it('name the tag, the socket and the size of the configuration space', () => {
    const hint = monitorHint('/run/vm,1.sock', 'share');
    expect(hint).toContain('path=/run/vm,,1.sock ');
    expect(hint).toContain('virtio-id=9,num_vqs=1,vq_size=128,config_size=7');
    expect(guestHint('share')).toContain(
      'trans=virtio,version=9p2000.L,msize=512000,access=client share /mnt',
    );
  });

  it.each([
    ['', /a tag is needed/],
    ['x'.repeat(255), /longer than 254 bytes/],
    ['a,b', /a comma/],
    ['a b', /a blank/],
  ])('a tag that cannot be is named: %j', (tag, named) => {
    expect(tagError(tag)).toMatch(named);
    expect(tagError('share')).toBeUndefined();
  });

  it.each([
    ['vhost-user:///run/a?tag=t', { path: '/run/a', tag: 't', exportName: undefined }],
    [
      'vhost-user:///run/a?tag=t%C3%A4g&export=b%26c&busy-poll=50',
      { path: '/run/a', tag: 'täg', exportName: 'b&c', busyPoll: 50 },
    ],
  ])('%s is read and written', (uri, parts) => {
    const endpoint = { kind: 'vhost-user', ...parts } as const;
    expect(endpointOf(uri)).toEqual(endpoint);
    expect(uriOf(endpoint)).toBe(uri);
  });

  it.each([
    ['vhost-user:///run/a', /a tag is needed/],
    ['vhost-user://run/a?tag=t', /must be absolute/],
    ['vhost-user:///run/a?tag=t&tag=u', /tag is given twice/],
    ['vhost-user:///run/a?tag=t&readonly=on', /"readonly" is no parameter/],
    ['vhost-user:///run/a?tag=t&busy-poll=1s', /a number of microseconds up to 10000 is needed/],
    ['vhost-user:///run/a?tag=t&busy-poll=10001', /a number of microseconds up to 10000 is needed/],
  ])('%s is refused', (uri, named) => {
    expect(endpointOf(uri)).toMatch(named);
  });
});

describe('an event descriptor', () => {
  it('that is full does not block the writer', async () => {
    monitor.close();
    await settled();
    const guest = await Frontend.connect(served.path);
    await guest.start();
    const full = eventfd();
    writeSync(full, Buffer.from('feffffffffffffff', 'hex'));
    await guest.monitor.order(request.setVringCall, u64(0), [full]);
    await guest.attach();
    guest.close();
    closeSync(full);
    monitor = await Monitor.connect(served.path);
  });
});
