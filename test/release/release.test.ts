import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { argumentsFor, compilerFor, publishedTargets } from '../../native-shims/targets.mjs';
import { installNode } from '../../scripts/install-node.mjs';
import { installPackage } from '../../scripts/install-package.mjs';
import { nodeVersions } from '../../scripts/release.mjs';
import { muslOf } from '../../scripts/targets.mjs';
import { checkBinary } from '../package/binary.ts';
import { type Installed, serveAndMount } from '../package/session.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const emulator = '/usr/bin/qemu-aarch64';
const addons = join(root, 'native-shims/build');
/** What is installed from a tarball that has the addon for all targets. */
let place: Installed;
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ninepd-release-'));
  const { installed } = installPackage();
  cpSync(installed, folder, { recursive: true, verbatimSymlinks: true });
  const ninepd = join(folder, 'node_modules/ninepd');
  for (const target of publishedTargets) {
    cpSync(join(addons, target), join(ninepd, 'native-shims/build', target), { recursive: true });
  }
  place = { installed: folder, program: join(ninepd, 'dist/cli/main.js') };
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each(publishedTargets)('the addon for %s needs no newer C library than is promised', target => {
  checkBinary(join(addons, target), target);
});

test.each(nodeVersions)('Node.js %s serves and mounts', async version => {
  await serveAndMount(place, [installNode(version)]);
});

// The emulator has neither Landlock nor seccomp.
test('Node.js for arm64 serves and mounts', async () => {
  const command = [emulator, '-L', '/usr/aarch64-linux-gnu', installNode('20', 'arm64')];
  await serveAndMount(place, command, '--sandbox', 'off');
});

/** How programs of an architecture are run here. */
const emulators: Record<string, string[]> = { x64: [], arm64: [emulator] };
const names: Record<string, string> = { x64: 'x86_64', arm64: 'aarch64' };

describe.each(['x64', 'arm64'])('musl on %s', arch => {
  const target = `${arch}-musl`;
  const sysroot = muslOf(arch);
  const loader = join(sysroot, 'usr/lib', `${names[arch]}-linux-musl`, 'libc.so');
  const run = (...args: string[]) => {
    const [program, ...rest] = [...emulators[arch]!, loader, ...args];
    return execFileSync(program!, rest, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  };

  test('its dynamic linker finds all that the addon needs, but what Node.js has', () => {
    const addon = join(addons, target, 'native-shims.node');
    const symbols = execFileSync('readelf', ['--dyn-syms', '-W', addon], { encoding: 'utf8' });
    const nodes = [...symbols.matchAll(/ UND ((?:napi|uv)_\w+)$/gm)].map(match => match[1]);
    expect(nodes).toContain('napi_create_function');
    const source = join(folder, `${target}.c`);
    writeFileSync(
      source,
      `#include <dlfcn.h>
       #include <stdio.h>
       ${nodes.map(name => `int ${name}(void) { return 1; }`).join('\n')}
       int main(int count, char **arguments) {
         void *addon = dlopen(arguments[count - 1], RTLD_NOW);
         printf("%s\\n", addon == NULL ? dlerror() : dlsym(addon, "napi_register_module_v1") ? "loaded" : "no entry");
       }`,
    );
    const compiler = compilerFor(target)!;
    const { before, after } = argumentsFor(target, compiler, { kind: 'program', folder, sysroot });
    const host = join(folder, target);
    const args = ['-rdynamic', ...before, source, ...after, '-o', host];
    execFileSync(compiler, args, { cwd: join(root, 'native-shims') });
    expect(run(host, addon)).toBe('loaded\n');
  });
});
