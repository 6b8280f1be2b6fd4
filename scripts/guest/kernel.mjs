// The kernel image, the guest's modules with their dependencies, unpacked and in loading order, and the busybox that loads
// them.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

// Loaded at boot, in this order, each after its dependencies.
export const bootModules = [
  'virtio_pci',
  'virtio_blk',
  'virtio_console',
  'virtio_net',
  'crc32c_generic',
  'ext4',
  '9pnet_virtio',
  '9pnet_fd',
  '9p',
];

// Loaded by tests: `guest-module NAME`.
const onDemandModules = [
  'vsock',
  'vmw_vsock_virtio_transport',
  'vsock_loopback',
  'overlay',
  'loop',
  'dm_mod',
  'dm_delay',
  'vhost_vsock',
  'virtio_rng',
  'vfat',
  'nls_cp437',
  'nls_ascii',
];

// modules/<name>.ko and, for each wanted module, modules/<name>.chain: the files to insert, one a line.
export async function makeKernel(archive, files, dir) {
  const unpacked = join(dir, 'unpacked');
  mkdirSync(unpacked);
  await archive.unpack(files.busybox, unpacked, { paths: ['./usr/bin/busybox'] });
  renameSync(join(unpacked, 'usr/bin/busybox'), join(dir, 'busybox'));
  await archive.unpack(files.kernel, unpacked, {
    paths: ['./boot/vmlinuz-*', './usr/lib/modules/*/kernel/*', './usr/lib/modules/*/modules.*'],
  });
  const modulesRoot = join(unpacked, 'usr/lib/modules');
  const [release] = readdirSync(modulesRoot);
  const kernel = join(modulesRoot, release);
  const builtIn = new Set(
    readFileSync(join(kernel, 'modules.builtin'), 'utf8')
      .split('\n')
      .map(path => moduleName(path)),
  );
  const located = new Map(
    readdirSync(join(kernel, 'kernel'), { recursive: true })
      .filter(path => /\.ko(\.xz)?$/.test(path))
      .map(path => [moduleName(path), join(kernel, 'kernel', path)]),
  );
  mkdirSync(join(dir, 'modules'));
  const modules = new ModuleSet({ builtIn, located, dir: join(dir, 'modules') });
  for (const name of [...bootModules, ...onDemandModules]) modules.want(name);
  renameSync(join(unpacked, 'boot', `vmlinuz-${release}`), join(dir, 'vmlinuz'));
  writeFileSync(join(dir, 'release'), `${release}\n`);
  rmSync(unpacked, { recursive: true });
}

class ModuleSet {
  #builtIn;
  #located;
  #dir;
  #depends = new Map();

  constructor({ builtIn, located, dir }) {
    this.#builtIn = builtIn;
    this.#located = located;
    this.#dir = dir;
  }

  want(name) {
    const chain = [];
    this.#add(moduleName(name), chain);
    writeFileSync(join(this.#dir, `${name}.chain`), chain.map(module => `${module}.ko\n`).join(''));
  }

  #add(name, chain) {
    if (this.#builtIn.has(name) || chain.includes(name)) return;
    for (const dependency of this.#dependsOf(name)) this.#add(dependency, chain);
    chain.push(name);
  }

  #dependsOf(name) {
    let depends = this.#depends.get(name);
    if (depends === undefined) {
      const path = this.#located.get(name);
      if (path === undefined) throw new Error(`the kernel package has no module ${name}`);
      const image = path.endsWith('.xz')
        ? execFileSync('xz', ['-dc', path], { maxBuffer: 64 << 20 })
        : readFileSync(path);
      writeFileSync(join(this.#dir, `${name}.ko`), image);
      depends = modinfo(image, 'depends')
        .filter(dependency => dependency !== '')
        .map(moduleName);
      this.#depends.set(name, depends);
    }
    return depends;
  }
}

// .modinfo is a run of NUL-terminated `key=value`; depends is a comma list.
function modinfo(image, key) {
  const at = image.indexOf(`\0${key}=`, 0, 'latin1');
  if (at < 0) return [];
  const start = at + key.length + 2;
  return image.toString('latin1', start, image.indexOf(0, start)).split(',');
}

function moduleName(path) {
  return path
    .replace(/^.*\//, '')
    .replace(/\.ko(\.xz)?$/, '')
    .replaceAll('-', '_');
}
