// Links against the interface of glibc 2.28 whatever version this machine has, so that what is compiled here runs on RHEL 8, Debian
// 10 and later. The linker takes the newest version of each symbol in the library it is given: it is given one without code, made
// here, that has of each symbol the newest version up to 2.28. A call that 2.28 lacks is an undefined reference at link time, and has
// its place in compat/glibc.c.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const newest = [2, 28];

function run(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (error?.code === 'ENOENT')
    throw new Error(`${command} is missing (Debian, Ubuntu: apt-get install gcc binutils).`);
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? stderr}`);
  return stdout;
}

const numbers = version => version.split('.').map(Number);

/** Below 0, 0 or above 0, like a comparison of numbers. */
function compare([aMajor, aMinor = 0, aPatch = 0], [bMajor, bMinor = 0, bPatch = 0]) {
  return aMajor - bMajor || aMinor - bMinor || aPatch - bPatch;
}

/** Of each symbol the newest version up to 2.28: name → { version, type, bytes }. */
function symbolsOf(library) {
  const found = new Map();
  // Num: Value Size Type Bind Vis Ndx Name@Version, readelf(1).
  const line = /^ *\d+: [0-9a-f]+ +(\S+) (FUNC|IFUNC|OBJECT) +\S+ +\S+ +\d+ (\w+)@+GLIBC_([\d.]+)/gm;
  for (const [, size, type, name, version] of run('readelf', ['--dyn-syms', '-W', library]).matchAll(line)) {
    const older = found.get(name);
    if (compare(numbers(version), newest) > 0) continue;
    if (older && compare(numbers(older.version), numbers(version)) >= 0) continue;
    found.set(name, { version, type: type === 'OBJECT' ? 'object' : 'function', bytes: Number(size) });
  }
  return found;
}

function assembly(symbols) {
  const lines = ['.data'];
  for (const [name, { version, type, bytes }] of symbols) {
    const label = `stub.${name}`;
    lines.push(`.globl ${label}`, `.type ${label}, %${type}`, `.size ${label}, ${bytes}`);
    lines.push(
      `.symver ${label}, ${name}@@GLIBC_${version}`,
      `${label}: .zero ${type === 'object' ? bytes : 1}`,
    );
  }
  return `${lines.join('\n')}\n`;
}

function versionScript(symbols) {
  const versions = [...new Set([...symbols.values()].map(({ version }) => version))];
  return versions.map((version, i) => `GLIBC_${version} {${i === 0 ? ' local: stub.*;' : ''} };\n`).join('');
}

function makeLibrary(compiler, path, soname, sources, script) {
  run(compiler, [
    ...['-shared', '-nostdlib', `-Wl,-soname,${soname}`],
    ...(script === undefined ? [] : [`-Wl,--version-script,${script}`]),
    ...['-x', 'assembler', ...sources, '-o', path],
  ]);
}

/** Arguments of the compiler, before and after the sources; the libraries are made in `folder`. */
export function linkOldGlibc(compiler, folder) {
  mkdirSync(folder, { recursive: true });
  const [stubs, script, nothing] = ['stubs.s', 'versions', 'nothing.s'].map(name => join(folder, name));
  const [libc, libpthread] = ['libc.so', 'libpthread.so'].map(name => join(folder, name));
  const symbols = symbolsOf(run(compiler, ['-print-file-name=libc.so.6']).trim());
  writeFileSync(stubs, assembly(symbols));
  writeFileSync(script, versionScript(symbols));
  writeFileSync(nothing, '');
  makeLibrary(compiler, libc, 'libc.so.6', [stubs], script);
  // Its functions are in libc.so.6 since 2.34; programs for older ones need it by name.
  makeLibrary(compiler, libpthread, 'libpthread.so.0', [nothing]);
  return {
    before: ['-nodefaultlibs'],
    after: ['compat/glibc.c', libc, '-Wl,--no-as-needed', libpthread, '-lgcc'],
  };
}
