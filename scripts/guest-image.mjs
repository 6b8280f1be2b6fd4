// Builds a Linux guest below .cache/guest: kernel and modules, initramfs, root disk and QEMU, from Debian packages that are
// unpacked there and not installed on this machine.
//
//   node scripts/guest-image.mjs             make what is missing, print the path of the manifest
//   node scripts/guest-image.mjs --refresh   ask Debian for newer packages first
//
// The manifest (see writeManifest) is what test/support/guest.ts reads. Parts are named after a hash of all that
// decides their content, so a changed test program makes a new initramfs (a second) and leaves the disk alone.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DebianArchive } from './guest/apt.mjs';
import { makeInitramfs } from './guest/initramfs.mjs';
import { makeKernel } from './guest/kernel.mjs';
import {
  kernelMetapackage,
  qemuPackages,
  rootPackages,
  vsockDevicePackages,
  vsockDeviceRelease,
} from './guest/packages.mjs';
import { cacheDir, hashOf, mountHelper, programDir, say, scriptDir } from './guest/paths.mjs';
import { makeQemu } from './guest/qemu.mjs';
import { makeRootDisk } from './guest/root-disk.mjs';
import { needTools } from './guest/tools.mjs';

const partsFile = join(cacheDir, 'manifest.json');

function sources(...names) {
  return names.map(name => readFileSync(join(scriptDir, name)));
}

// Everything below one directory whose name holds the hash; a directory that exists is complete, since it is
// renamed into place as the last act.
async function part(name, inputs, make) {
  const path = join(cacheDir, `${name}-${hashOf(inputs)}`);
  if (!existsSync(path)) {
    const unfinished = `${path}.unfinished`;
    const began = Date.now();
    say(`${name}: making`);
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(unfinished, { recursive: true });
    await make(unfinished);
    renameSync(unfinished, path);
    forgetOlder(name, path);
    say(`${name}: made in ${((Date.now() - began) / 1000).toFixed(1)} s`);
  }
  return path;
}

function forgetOlder(name, keep) {
  for (const entry of readdirSync(cacheDir)) {
    const path = join(cacheDir, entry);
    if (new RegExp(`^${name}-[0-9a-f]{16}$`).test(entry) && path !== keep) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

function writeManifest(manifest) {
  const text = `${JSON.stringify(manifest, null, 2)}\n`;
  if (!existsSync(partsFile) || readFileSync(partsFile, 'utf8') !== text) {
    writeFileSync(`${partsFile}.${process.pid}`, text);
    renameSync(`${partsFile}.${process.pid}`, partsFile);
  }
}

// A lock: a second process waits, then finds everything built.
function underLock() {
  mkdirSync(cacheDir, { recursive: true });
  if (process.env.GUEST_IMAGE_LOCKED === cacheDir) return true;
  const command = [join(cacheDir, 'lock'), process.execPath, ...process.argv.slice(1)];
  const env = { ...process.env, GUEST_IMAGE_LOCKED: cacheDir };
  const { status, error } = spawnSync('flock', command, { stdio: 'inherit', env });
  if (error !== undefined) throw error;
  process.exitCode = status ?? 1;
  return false;
}

async function makeAll() {
  needTools();
  const archive = new DebianArchive(join(cacheDir, 'apt'));
  if (process.argv.includes('--refresh')) archive.forget();
  const files = archive.resolve({
    kernel: { metapackage: kernelMetapackage },
    root: { packages: rootPackages },
    qemu: { packages: qemuPackages, fromBackports: true },
    busybox: { packages: ['busybox-static'] },
  });
  const testing = new DebianArchive(join(cacheDir, 'apt-testing'), vsockDeviceRelease);
  if (process.argv.includes('--refresh')) testing.forget();
  const { vsockDevice } = testing.resolve({ vsockDevice: { packages: vsockDevicePackages } });
  const versions = request => JSON.stringify(files[request].map(({ file }) => file));

  const kernel = await part(
    'kernel',
    [versions('kernel'), versions('busybox'), ...sources('apt.mjs', 'kernel.mjs')],
    dir => makeKernel(archive, files, dir),
  );
  const disk = await part(
    'root',
    [versions('root'), ...sources('apt.mjs', 'packages.mjs', 'root-disk.mjs')],
    dir => makeRootDisk(archive, files.root, dir),
  );
  const qemu = await part('qemu', [versions('qemu'), ...sources('apt.mjs', 'qemu.mjs')], dir =>
    makeQemu(archive, files.qemu, dir),
  );
  const vsock = await part('vsock-device', [JSON.stringify(vsockDevice), ...sources('apt.mjs')], dir =>
    testing.unpack(vsockDevice, dir, { leaveOut: [/^(?!vhost-device-vsock$)/] }),
  );
  const programs = readdirSync(programDir)
    .filter(name => name.endsWith('.c'))
    .sort();
  const initramfs = await part(
    'initramfs',
    [
      kernel,
      ...sources('initramfs.mjs', 'init', 'guest-module', 'agent.c'),
      readFileSync(mountHelper),
      ...[...programs, 'check.h'].flatMap(name => [name, readFileSync(join(programDir, name))]),
    ],
    dir => makeInitramfs({ kernel, programs, dir }),
  );
  archive.dropDownloads();
  testing.dropDownloads();
  writeManifest({
    kernel: join(kernel, 'vmlinuz'),
    initramfs: join(initramfs, 'initramfs.cpio'),
    programs: join(initramfs, 'programs'),
    rootDisk: join(disk, 'root.ext4'),
    qemu: join(qemu, 'qemu-system-x86_64'),
    libvirtRoot: join(qemu, 'tree'),
    vsockDevice: join(vsock, 'usr/bin/vhost-device-vsock'),
    kernelRelease: readFileSync(join(kernel, 'release'), 'utf8').trim(),
    qemuVersion: readFileSync(join(qemu, 'version'), 'utf8').trim(),
  });
  process.stdout.write(`${partsFile}\n`);
}

if (underLock()) await makeAll();
