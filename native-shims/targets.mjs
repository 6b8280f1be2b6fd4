// What the addon is compiled for, ARCH-LIBC by Node's names, with which compiler and which C library.
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { linkOldGlibc } from './old-glibc.mjs';

/** Those that are published. Others are compiled where they run. */
export const publishedTargets = ['x64-glibc', 'arm64-glibc', 'x64-musl', 'arm64-musl'];

const gnuArch = { x64: 'x86_64', arm64: 'aarch64' };

/** Of the Node.js that runs this: its ELF interpreter is the C library's. src/host/addon.ts does the same. */
export function ownTarget() {
  const head = Buffer.alloc(4096);
  const fd = openSync(process.execPath, 'r');
  readSync(fd, head, 0, head.length, 0);
  closeSync(fd);
  return `${process.arch}-${head.includes('/ld-musl-') ? 'musl' : 'glibc'}`;
}

const runs = name => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0;

/** The compiler for a target; undefined if this machine has none. */
export function compilerFor(target) {
  const [arch] = target.split('-');
  const own = [process.env.CC, 'cc', 'gcc', 'clang'];
  const names = arch === process.arch ? own : [`${gnuArch[arch]}-linux-gnu-gcc`];
  return names.find(name => name && runs(name));
}

function printed(compiler, option) {
  const { stdout } = spawnSync(compiler, [option], { encoding: 'utf8' });
  return stdout.trim();
}

/** The kernel's headers of Debian's compiler, searched last. */
function kernelHeaders(arch) {
  const triple = `${gnuArch[arch]}-linux-gnu`;
  const cross = `/usr/${triple}/include`;
  const places = existsSync(cross) ? [cross] : [`/usr/include/${triple}`, '/usr/include'];
  return places.flatMap(place => ['-idirafter', place]);
}

/** musl in place of the compiler's C library: what musl-gcc does, for any architecture. `sysroot` has Debian's musl-dev. */
function withMusl(compiler, arch, sysroot, kind) {
  const triple = `${gnuArch[arch]}-linux-musl`;
  const library = join(sysroot, 'usr/lib', triple);
  const start = ['Scrt1.o', 'crti.o'].map(name => join(library, name));
  const program = ['-pie', `-Wl,-dynamic-linker,/lib/ld-musl-${gnuArch[arch]}.so.1`, ...start];
  return {
    before: [
      ...['-nostdinc', '-isystem', join(sysroot, 'usr/include', triple)],
      ...['-isystem', printed(compiler, '-print-file-name=include'), ...kernelHeaders(arch)],
      // Its libgcc chooses atomics by a function that only glibc has.
      ...(arch === 'arm64' ? ['-mno-outline-atomics'] : []),
      ...['-nostdlib', ...(kind === 'program' ? program : [])],
    ],
    after: [`-L${library}`, '-lc', '-lgcc', ...(kind === 'program' ? [join(library, 'crtn.o')] : [])],
  };
}

/**
 * Arguments of the compiler for a target, before and after the sources. `kind` is addon or program; `folder` is for files that the
 * linker needs; `sysroot` is where musl is when it is not this machine's own C library.
 */
export function argumentsFor(target, compiler, { kind, folder, sysroot }) {
  const [arch, libc] = target.split('-');
  if (libc === 'glibc') {
    if (!publishedTargets.includes(target)) return { before: [], after: [] };
    return linkOldGlibc(compiler, folder);
  }
  const header = ['-include', 'compat/musl.h'];
  if (sysroot === undefined) return { before: header, after: [] };
  const { before, after } = withMusl(compiler, arch, sysroot, kind);
  return { before: [...before, ...header], after };
}
