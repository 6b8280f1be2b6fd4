import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getAttributeSync } from 'fs-xattr';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { prelude } from './check.ts';
import { libvirtQemu, startDomain } from './libvirt-domain.ts';

// The domain of docs/transports.md under libvirt, once for each accessmode. It also has libvirt's own <filesystem> with the same
// accessmode, which QEMU serves as the user libvirt-qemu.

/** The user that serves `mapped` and `squash`. */
const nobody = 65_534;

/** Done as the guest's root in each of the two file systems. */
const work = `
  printf '#!/bin/sh\\necho runs\\n' > script
  chmod 755 script; ln -s script link; mkfifo fifo
  chown -h 1000:1001 script link; mknod null c 1 3; chmod 4755 script`;

interface AccessMode {
  readonly accessmode: string;
  readonly machine: string;
  /** What the guest sees of ninepd's file system: `stat` of each name. */
  readonly guest: string[];
  /** What the host has afterwards, for the user that serves. */
  readonly host: (uid: number) => Record<string, string>;
  /** What the host has of libvirt's own file system, where that differs. */
  readonly libvirts?: (uid: number) => Record<string, string>;
}

const asMade = [
  'fifo fifo 644 0:0',
  'link symbolic link 777 1000:1001',
  'null character special file 644 0:0',
  'script regular file 4755 1000:1001',
];

const accessModes: AccessMode[] = [
  {
    accessmode: 'mapped',
    machine: 'pc',
    guest: asMade,
    host: uid => ({
      fifo: `file 600 ${uid}:${uid}, record 10644 0:0`,
      link: `file 600 ${uid}:${uid}, record 120777 1000:1001`,
      null: `file 600 ${uid}:${uid}, record 20644 0:0`,
      script: `file 600 ${uid}:${uid}, record 104755 1000:1001`,
    }),
  },
  {
    accessmode: 'squash',
    machine: 'q35',
    guest: [
      `fifo fifo 644 ${nobody}:${nobody}`,
      `link symbolic link 777 ${nobody}:${nobody}`,
      `script regular file 755 ${nobody}:${nobody}`,
    ],
    host: uid => ({
      fifo: `fifo 644 ${uid}:${uid}`,
      link: `link to script 777 ${uid}:${uid}`,
      script: `file 755 ${uid}:${uid}`,
    }),
    // QEMU lets a guest set the set-id bits of its own user.
    libvirts: uid => ({
      fifo: `fifo 644 ${uid}:${uid}`,
      link: `link to script 777 ${uid}:${uid}`,
      script: `file 4755 ${uid}:${uid}`,
    }),
  },
  {
    accessmode: 'passthrough',
    machine: 'q35',
    guest: asMade,
    host: () => ({
      fifo: 'fifo 644 0:0',
      link: 'link to script 777 1000:1001',
      null: 'device 644 0:0',
      script: 'file 4755 1000:1001',
    }),
    // libvirt-qemu may not give files to the guest's users, so nothing is created.
    libvirts: () => ({}),
  },
];

let dir: string;
let server: Ninepd;

const share = () => join(dir, 'share');
/** Of the machine that libvirt sees: its /run. */
const inRun = (...names: string[]) => join(dir, 'run', ...names);

beforeAll(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-libvirt-')));
  chmodSync(dir, 0o755);
  mkdirSync(inRun());
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

async function serve(accessmode: string, more = ''): Promise<void> {
  server = await Ninepd.start({
    exports: [],
    listen: [`vhost-user://${inRun('vm1.sock')}?tag=share&export=data${more}`],
    args: [
      ...['--export', `${share()},name=data,accessmode=${accessmode}`],
      ...(accessmode === 'passthrough' ? [] : ['--user', 'nobody']),
    ],
  });
}

beforeEach(() => {
  mkdirSync(share());
  mkdirSync(inRun('theirs'));
  chownSync(inRun('theirs'), libvirtQemu, libvirtQemu);
});
afterEach(async () => {
  await server?.stop();
  rmSync(share(), { recursive: true });
  rmSync(inRun('theirs'), { recursive: true });
});

/** Each object of a directory as the host has it. */
function onHost(directory: string): Record<string, string> {
  const describeOne = (path: string) => {
    const stat = lstatSync(path);
    const link = stat.isSymbolicLink() && `link to ${readlinkSync(path)}`;
    const kind = link || (stat.isFIFO() && 'fifo') || (stat.isCharacterDevice() && 'device') || 'file';
    const owner = `${kind} ${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid}`;
    return kind === 'file' ? `${owner}${recordOf(path)}` : owner;
  };
  return Object.fromEntries(readdirSync(directory).map(name => [name, describeOne(join(directory, name))]));
}

/** The record of `mapped`, if there is one. */
function recordOf(path: string): string {
  const field = (name: string) => getAttributeSync(path, `user.virtfs.${name}`).readUInt32LE(0);
  try {
    return `, record ${field('mode').toString(8)} ${field('uid')}:${field('gid')}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENODATA') return '';
    throw error;
  }
}

describe.each(accessModes)('accessmode=$accessmode, machine $machine', mode => {
  const { accessmode, machine } = mode;
  let guest: Guest | undefined;
  afterEach(async () => {
    await guest?.stop();
    guest = undefined;
  });

  test('does with ninepd what its security model says', async () => {
    const uid = accessmode === 'passthrough' ? 0 : nobody;
    chownSync(share(), uid, uid);
    await serve(accessmode, `&group=${libvirtQemu}`);
    const theirs = `<source dir='/run/theirs'/><target dir='theirs'/>`;
    const own = `<filesystem type='mount' accessmode='${accessmode}'>${theirs}</filesystem>`;
    guest = await startDomain(inRun(), machine, own);
    for (const tag of ['share', 'theirs']) {
      await guest.mount({ trans: 'virtio', tag, path: `/mnt/${tag}`, msize: 512_000 });
    }

    const node = accessmode === 'squash' ? `fails 'Operation not permitted' mknod` : 'mknod';
    await guest.sh(`${prelude} cd /mnt/share; ${work.replace('mknod', node)}; same "$(./link)" runs`);
    const seen = (await guest.sh(`cd /mnt/share; stat -c '%n %F %a %u:%g' *`)).stdout.split('\n');
    expect(seen).toEqual(mode.guest);
    expect(onHost(share())).toEqual(mode.host(uid));
    if (accessmode === 'mapped') expect(readFileSync(join(share(), 'link'), 'utf8')).toBe('script');
    else expect(execFileSync(join(share(), 'link'), { encoding: 'utf8' })).toBe('runs\n');

    const { stderr } = await guest.sh(`set +e; cd /mnt/theirs; ${work}`, { expectCode: 'any' });
    expect(onHost(inRun('theirs'))).toEqual((mode.libvirts ?? mode.host)(libvirtQemu));
    expect(/^chown: .*Operation not permitted$/m.test(stderr)).toBe(accessmode === 'squash');
    expect(await guest.complaints()).toEqual([]);
  });
});

test('a socket without group= refuses QEMU as libvirt-qemu', async () => {
  await serve('passthrough');
  await expect(startDomain(inRun(), 'q35', '')).rejects.toThrow(
    /Failed to connect to '\/run\/vm1.sock': Permission denied/,
  );
});
