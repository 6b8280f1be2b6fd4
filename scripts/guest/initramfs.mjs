// A small initramfs: busybox, the modules, /init, and our own programs, which /init keeps below /opt/guest after it
// has gone over to the root disk. So a changed program costs a second, not a new disk. programs/ beside it has the same
// programs for this machine, where a test needs one of them on the host's side.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { bootModules } from './kernel.mjs';
import { mountHelper, programDir, scriptDir } from './paths.mjs';

const compile = ['-std=gnu11', '-O1', '-static', '-s', '-pthread', '-Wall', '-Wextra', '-Werror'];

export function makeInitramfs({ kernel, programs, dir }) {
  const root = join(dir, 'tree');
  for (const name of ['bin', 'guest/bin', 'guest/modules', 'proc', 'dev', 'root']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  copyFileSync(join(kernel, 'busybox'), join(root, 'bin/busybox'));
  chmodSync(join(root, 'bin/busybox'), 0o755);
  symlinkSync('busybox', join(root, 'bin/sh'));
  cpSync(join(kernel, 'modules'), join(root, 'guest/modules'), { recursive: true });
  writeFileSync(join(root, 'guest/modules/boot'), bootModules.map(name => `${name}\n`).join(''));
  copyFileSync(join(scriptDir, 'init'), join(root, 'init'));
  copyFileSync(join(scriptDir, 'guest-module'), join(root, 'guest/bin/guest-module'));
  chmodSync(join(root, 'init'), 0o755);
  chmodSync(join(root, 'guest/bin/guest-module'), 0o755);
  buildProgram(join(scriptDir, 'agent.c'), join(root, 'guest/bin/guest-agent'));
  buildProgram(mountHelper, join(root, 'guest/bin/mount.9pvsock'));
  mkdirSync(join(dir, 'programs'));
  for (const program of programs) {
    const name = program.replace(/\.c$/, '');
    buildProgram(join(programDir, program), join(root, 'guest/bin', name));
    copyFileSync(join(root, 'guest/bin', name), join(dir, 'programs', name));
  }
  const list = readdirSync(root, { recursive: true }).join('\n');
  const image = execFileSync('cpio', ['--quiet', '-o', '-H', 'newc', '-R', '0:0'], {
    cwd: root,
    input: list,
    maxBuffer: 256 << 20,
  });
  writeFileSync(join(dir, 'initramfs.cpio'), image);
  rmSync(root, { recursive: true });
}

function buildProgram(source, program) {
  execFileSync('gcc', [...compile, '-o', program, source], { stdio: ['ignore', 'inherit', 'inherit'] });
}
