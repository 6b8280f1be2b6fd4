import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type OpenTransport, overVhostUser } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { WireTap } from './wire-tap.ts';

// Uncached pages in the guest's kernel (docs/guest-caches.md): with ninepd over TCP, where a relay records messages, and over
// vhost-user, and with QEMU's server.

const overTcpAndVhostUser: OpenTransport = async () => {
  const transport = await overVhostUser();
  return { ...transport, listen: ['tcp://127.0.0.1:0', ...transport.listen] };
};

const steps = ['store', 'store-wronly', 'append'] as const;
type Outcome = Record<(typeof steps)[number], string>;

const refused = { store: 'refused: AAAA AAAA', 'store-wronly': 'refused: AAAA AAAA' };
const kept = { store: 'kept: SSSS WWWW', 'store-wronly': 'kept: SSSS WWWW' };
const lost = { store: 'kept: AAAA WWWW', 'store-wronly': 'kept: AAAA WWWW' };
/** Debian kernels that were seen to lose both; others are not judged. */
const losing = /^6\.12\.(9[4-9]|10\d|11[0-8])\+/;
const lostWhereSeen = (release: string) => (losing.test(release) ? lost : {});

/** An append is visible to read(2) at once, but perhaps not in a mapping. */
const appendIsRead = /^read BBBB, mapped .*: BBBB$/;

const modes = [
  { options: { cache: 'none' }, stores: () => refused, append: appendIsRead },
  { options: { cache: 'readahead' }, stores: () => refused, append: /: BBBB$/ },
  { options: { cache: 'mmap' }, stores: lostWhereSeen, append: appendIsRead },
  { options: { cache: 'loose' }, stores: lostWhereSeen, append: appendIsRead },
  { options: { cache: 'mmap', extra: 'directio' }, stores: () => kept, append: appendIsRead },
] as const;

let fixture: HostFixture;
let tap: WireTap;

/** Creates the files, mounts, runs each step; returns the program's output and the host's files after umount. */
async function outcome(
  transport: string,
  dir: string,
  mount: () => Promise<string>,
  made: (name: string, content: Buffer) => void = () => {},
): Promise<Outcome> {
  const named = (step: string) => `${transport}-${step}`;
  for (const step of steps) {
    const content = Buffer.alloc(step === 'append' ? 5000 : 4096, 'A');
    writeFileSync(join(dir, named(step)), content);
    chmodSync(join(dir, named(step)), 0o666);
    made(named(step), content);
  }
  const path = await mount();
  const said = await fixture.guest.sh(
    `cd ${path}; for step in ${steps.join(' ')}; do cached-page ${transport}-$step $step; done`,
  );
  await fixture.guest.umount(path);
  const lines = said.stdout.split('\n');
  const [store, wronly, append] = steps.map((step, i) => {
    const host = readFileSync(join(dir, named(step)), 'latin1');
    const pieces = step === 'append' ? [host.slice(5000)] : [host.slice(0, 4), host.slice(100, 104)];
    return `${lines[i]}: ${pieces.join(' ')}`;
  });
  return { store: store!, 'store-wronly': wronly!, append: append! };
}

beforeAll(async () => {
  fixture = await HostFixture.over(overTcpAndVhostUser)();
  tap = await WireTap.start(fixture.server.port);
});

afterAll(async () => {
  tap?.stop();
  await fixture?.stop();
});

describe('pages that a guest has not cached', () => {
  test.each(modes)(
    'with $options the server stores and shows what the guest sends, as QEMU’s does',
    async mode => {
      const mapped = fixture.hostDir('mapped');
      const overTcp = () =>
        fixture.guest.mount({
          trans: 'tcp',
          port: tap.port,
          aname: 'mapped',
          path: '/mnt/tcp',
          ...mode.options,
        });
      tap.files.clear();
      const seen = await outcome('tcp', mapped, overTcp, (name, content) => tap.files.set(name, content));
      expect(tap.wrong).toEqual([]);
      for (const [name, content] of tap.files)
        expect(readFileSync(join(mapped, name)), name).toEqual(content);

      const onDevice = () => fixture.mount('/mnt/device', 'passthrough', mode.options);
      expect(await outcome('device', fixture.hostDir('passthrough'), onDevice)).toEqual(seen);
      const onQemu = () => fixture.mountQemu('/mnt/qemu', mode.options);
      expect(await outcome('qemu', mapped, onQemu)).toEqual(seen);

      expect(seen).toMatchObject(mode.stores(fixture.guest.kernelRelease));
      expect(seen.append).toMatch(mode.append);
    },
  );

  test('with cache=mmap,directio random calls and shared mappings give back what was put in', async () => {
    await fixture.mount('/mnt/device', 'passthrough', { cache: 'mmap', extra: 'directio' });
    await fixture.guest.sh(
      'cd /mnt/device; exercise f 15 1000 mapread mapwrite noappend; cmp f /tmp/oracle-15',
      { timeout: 120_000 },
    );
    await fixture.guest.umount('/mnt/device');
    expect(readFileSync(join(fixture.hostDir('passthrough'), 'f'))).toEqual(
      (await fixture.guest.sh('cat /tmp/oracle-15')).bytes,
    );
  });

  test('at the end the kernel has warned of its own page faults alone, and the server holds nothing', async () => {
    const own = /netfs_page_mkwrite|Modules linked in|Call Trace/;
    expect((await fixture.guest.complaints()).filter(line => !own.test(line))).toEqual([]);
    await expect.poll(() => fixture.held(), { timeout: 3000, interval: 50 }).toEqual([]);
  });
});
