// The addon for all architectures and C libraries that are published. Cross compilers and musl are Debian's.
//   node scripts/targets.mjs      installs the compilers, as root, and compiles everything
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { compilerFor, ownTarget, publishedTargets } from '../native-shims/targets.mjs';
import { DebianArchive } from './guest/apt.mjs';
import { installDebianPackages, root, run, runProgram, SetupFault, say, setUp } from './setup.mjs';

const debianArch = { x64: 'amd64', arm64: 'arm64' };
const crossPackages = {
  x64: ['gcc-x86-64-linux-gnu', 'libc6-dev-amd64-cross'],
  arm64: ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross'],
};
const archOf = target => target.split('-')[0];
/** Where its headers and libraries are unpacked. */
export const muslOf = arch => join(root, '.cache', `musl-${arch}`);
/** Whether its C library is not the one of this machine. */
const needsMusl = target => target.endsWith('-musl') && target !== ownTarget();

/** Installs the compilers that are missing, or says how; the same for musl. */
export async function ensureCompilers() {
  const missing = publishedTargets.filter(target => compilerFor(target) === undefined).map(archOf);
  const names = [...new Set(missing)].flatMap(arch => crossPackages[arch]);
  if (names.length > 0) installDebianPackages(names, 'a compiler for every architecture that is published');
  for (const target of publishedTargets) if (needsMusl(target)) await ensureMusl(archOf(target));
}

/** musl's headers and libraries, unpacked and not installed: Debian has them for one architecture at a time. */
async function ensureMusl(arch) {
  const place = muslOf(arch);
  if (existsSync(place)) return;
  const archive = new DebianArchive(join(root, '.cache', 'musl-apt', arch), 'trixie', debianArch[arch]);
  const { musl } = archive.resolve({ musl: { packages: ['musl-dev'] } });
  const making = `${place}.${process.pid}`;
  mkdirSync(making, { recursive: true });
  await archive.unpack(musl, making, { leaveOut: [/^(?!musl)/] });
  renameSync(making, place);
  rmSync(join(root, '.cache', 'musl-apt', arch), { recursive: true });
}

/** Compiles the addon for a target. False if this machine has no compiler for it, or no musl. */
export function buildTarget(target) {
  if (target === ownTarget()) return true; // setUp made it.
  const args = [join(root, 'native-shims', 'build.mjs'), '--target', target];
  const sysroot = muslOf(archOf(target));
  if (needsMusl(target)) args.push('--sysroot', sysroot);
  // What this machine's compiler makes for its own architecture has its own C library.
  const none = needsMusl(target) ? !existsSync(sysroot) : archOf(target) === process.arch;
  if (none || compilerFor(target) === undefined) return false;
  say(`compiling the native addon for ${target}`);
  if (!run(process.execPath, args)) throw new SetupFault(`the addon for ${target} could not be compiled`);
  return true;
}

if (process.argv[1] === import.meta.filename) {
  await runProgram(async () => {
    setUp();
    await ensureCompilers();
    for (const target of publishedTargets) {
      if (!buildTarget(target)) throw new SetupFault(`no compiler for ${target}`);
    }
  });
}
