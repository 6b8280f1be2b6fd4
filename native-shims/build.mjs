// Compiles the addon with the C compiler alone: no node-gyp, so no Python and no download of Node's headers.
//   node build.mjs               build/native-shims.node, and ninepd-groups beside it
//   node build.mjs --sanitize    build/asan/native-shims.node, with the address and undefined-behaviour sanitizers
//   node build.mjs --old-kernel  build/old-kernel/native-shims.node, which finds no system call newer than 6.5
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generate } from './shared.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const variants = {
  '--sanitize': {
    folder: 'build/asan',
    flags: [
      '-g',
      '-O1',
      '-fno-omit-frame-pointer',
      '-fsanitize=address,undefined',
      '-fno-sanitize-recover=undefined',
    ],
  },
  '--old-kernel': { folder: 'build/old-kernel', flags: ['-O2', '-DOLD_KERNEL'] },
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
// nodelete: a worker thread's end must not unload the code that pool threads run.
const link = ['-shared', '-Wl,-z,nodelete', '-Wl,-z,relro,-z,now'];

function fail(line) {
  console.error(`native-shims: ${line}`);
  process.exit(1);
}

function compiler() {
  for (const name of [process.env.CC, 'cc', 'gcc', 'clang']) {
    if (name && spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0) return name;
  }
  fail('no C compiler found. Install one (Debian, Ubuntu: apt-get install gcc libc6-dev) or name it in CC.');
}

/** The compiler writes under a name of its own first: several builds may run at once, and what runs keeps the old file. */
function compile(output, inputs, args) {
  const modified = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (inputs.every(name => modified(join(here, name)) < modified(output))) return;
  const making = `${output}.${process.pid}`;
  mkdirSync(dirname(output), { recursive: true });
  const { status } = spawnSync(compiler(), [...args, '-o', making], { cwd: here, stdio: 'inherit' });
  if (status !== 0) {
    rmSync(making, { force: true });
    fail(
      "the C compiler failed. Are the C library's headers installed (Debian, Ubuntu: apt-get install libc6-dev)?",
    );
  }
  renameSync(making, output);
}

const variant = variants[process.argv[2]] ?? { folder: 'build', flags: ['-O2'] };
generate();
const inputs = readdirSync(here).filter(name => /\.(c|h|mjs)$/.test(name));
const sources = inputs.filter(name => name.endsWith('.c'));
const headers = join(
  dirname(createRequire(import.meta.url).resolve('node-api-headers/package.json')),
  'include',
);
const flags = [...always, ...variant.flags];
compile(join(here, variant.folder, 'native-shims.node'), inputs, [
  ...flags,
  '-fPIC',
  ...link,
  '-isystem',
  headers,
  ...sources,
]);
compile(
  join(here, variant.folder, 'ninepd-groups'),
  ['groups/main.c', 'shared.h', 'user-groups.h', 'build.mjs'],
  [...flags, 'groups/main.c'],
);
