// QEMU from Debian's backports (10.2 has the generic vhost-user device) and libvirt, unpacked with every shared library. QEMU is
// started by its own dynamic linker, independent of this machine's libraries. libvirt has absolute paths compiled in: the tree is
// complete enough to be its root directory.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { cacheDir } from './paths.mjs';

// Dependencies needed only by an installed system, or by libvirt's daemons.
const leftOut = [
  /^(adduser|passwd|login.*|debconf|libpam.*|init-system-helpers|openssl-provider-legacy|perl-base|base-files)$/,
  /^(systemd|systemd-container|libsystemd-shared|dbus.*|cron.*|logrotate|mount|mawk|sensible-utils|libfdisk1)$/,
];

const launcher = `#!/bin/sh
# The directory is found again at run time: the cache may be moved with the checkout.
here=$(dirname "$(readlink -f "$0")")/tree/usr
export QEMU_MODULE_DIR="$here/lib/x86_64-linux-gnu/qemu"
exec "$here/lib64/ld-linux-x86-64.so.2" --library-path "$here/lib/x86_64-linux-gnu" \\
  "$here/bin/qemu-system-x86_64" -L "$here/share/qemu" -L "$here/share/seabios" "$@"
`;

// The user as whom libvirt runs QEMU, with the ids of Debian (libvirt-daemon-driver-qemu.postinst).
const passwd = `root:x:0:0::/:/bin/false
libvirt-qemu:x:64055:64055::/:/bin/false
`;
const group = `root:x:0:
libvirt-qemu:x:64055:
`;

const mountPoints = ['proc', 'sys', 'dev', 'run', 'tmp', 'guest'];

export async function makeQemu(archive, files, dir) {
  const tree = join(dir, 'tree');
  mkdirSync(tree);
  await archive.unpack(files, tree, { leaveOut: leftOut });
  const command = join(dir, 'qemu-system-x86_64');
  writeFileSync(command, launcher);
  chmodSync(command, 0o755);
  rmSync(join(tree, 'usr/sbin'), { recursive: true, force: true });
  for (const point of mountPoints) mkdirSync(join(tree, point), { recursive: true });
  writeFileSync(join(tree, 'etc/passwd'), passwd);
  writeFileSync(join(tree, 'etc/group'), group);
  const version = execFileSync(command, ['--version'], { encoding: 'utf8' }).split('\n')[0];
  if (version === undefined || !version.includes('QEMU')) {
    throw new Error(`${relative(cacheDir, command)} does not run: ${version}`);
  }
  writeFileSync(join(dir, 'version'), `${version}\n`);
}
