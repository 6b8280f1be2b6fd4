// Compiles the addon with the C compiler alone: no node-gyp, so no Python and no download of Node's headers.
//   node build.mjs                    build/ARCH-LIBC/native-shims.node for this Node.js, ninepd-groups and ninepd-launch beside it
//   node build.mjs --target arm64-glibc
//   node build.mjs --target x64-musl --sysroot DIR   DIR has musl's headers and libraries
//   node build.mjs --sanitize         build/asan/native-shims.node, with the address and undefined-behaviour sanitizers
//   node build.mjs --old-kernel       build/old-kernel/native-shims.node, which finds no system call newer than 6.5
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generate } from './shared.mjs';
import { argumentsFor, compilerFor, ownTarget } from './targets.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const variants = {
  sanitize: {
    folder: 'build/asan',
    flags: [
      '-g',
      '-O1',
      '-fno-omit-frame-pointer',
      '-fsanitize=address,undefined',
      '-fno-sanitize-recover=undefined',
    ],
  },
  'old-kernel': { folder: 'build/old-kernel', flags: ['-O2', '-DOLD_KERNEL'] },
};
const always = [
  '-std=c11',
  '-D_GNU_SOURCE',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-fvisibility=hidden',
  '-pthread',
];
const link = ['-Wl,-z,relro,-z,now'];
// nodelete: a worker thread's end must not unload the code that pool threads run.
const linkAddon = [...link, '-shared', '-fPIC', '-Wl,-z,nodelete'];

function fail(line) {
  console.error(`native-shims: ${line}`);
  process.exit(1);
}

const { values } = parseArgs({
  options: {
    sanitize: { type: 'boolean' },
    'old-kernel': { type: 'boolean' },
    target: { type: 'string' },
    sysroot: { type: 'string' },
  },
});
const variant = variants[Object.keys(variants).find(name => values[name])];
const target = values.target ?? ownTarget();
const folder = join(here, variant?.folder ?? `build/${target}`);
const compiler =
  compilerFor(target) ??
  fail(
    values.target === undefined
      ? 'no C compiler found. Install one (Debian, Ubuntu: apt-get install gcc libc6-dev) or name it in CC.'
      : `no C compiler for ${target} found.`,
  );

function linkArguments(options) {
  try {
    return argumentsFor(target, compiler, options);
  } catch (error) {
    return fail(error.message);
  }
}

/** The compiler writes under a name of its own first: several builds may run at once, and what runs keeps the old file. */
function compile(name, kind, inputs, args) {
  const output = join(folder, name);
  const modified = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (inputs.every(input => modified(join(here, input)) < modified(output))) return;
  const making = `${output}.${process.pid}`;
  const work = `${making}.link`;
  mkdirSync(folder, { recursive: true });
  const { before, after } = variant
    ? { before: [], after: [] }
    : linkArguments({ kind, folder: work, sysroot: values.sysroot });
  const command = [...always, ...(variant?.flags ?? ['-O2']), ...before, ...args, ...after, '-o', making];
  const { status } = spawnSync(compiler, command, { cwd: here, stdio: 'inherit' });
  rmSync(work, { recursive: true, force: true });
  if (status !== 0) {
    rmSync(making, { force: true });
    fail(
      "the C compiler failed. Are the C library's headers installed (Debian, Ubuntu: apt-get install libc6-dev)? " +
        'An undefined reference is to a function newer than glibc 2.28: compat/glibc.c is where it can be had.',
    );
  }
  renameSync(making, output);
}

generate();
const inFolder = (name, pattern) =>
  readdirSync(join(here, name))
    .filter(file => pattern.test(file))
    .map(file => join(name, file));
const common = [...inFolder('.', /\.mjs$/), ...inFolder('compat', /\.[ch]$/)];
const sources = inFolder('.', /\.c$/);
const headers = join(
  dirname(createRequire(import.meta.url).resolve('node-api-headers/package.json')),
  'include',
);
compile(
  'native-shims.node',
  'addon',
  [...common, ...inFolder('.', /\.[ch]$/)],
  [...linkAddon, '-isystem', headers, ...sources],
);
compile(
  'ninepd-groups',
  'program',
  [...common, ...inFolder('.', /\.h$/), 'groups/main.c'],
  [...link, 'groups/main.c'],
);
const launch = ['launch/main.c', 'private-root.c', 'landlock.c', 'exec.c'];
compile(
  'ninepd-launch',
  'program',
  [...common, ...inFolder('.', /\.[ch]$/), ...launch],
  [...link, ...launch],
);
