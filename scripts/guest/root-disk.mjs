// The guests' root file system: real user space from Debian packages as one read-only ext4 disk.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rootLeftOut } from './packages.mjs';
import { findTool } from './tools.mjs';

// The users of the tests: alice and bob, each with a group of the same name, both in the group team.
const passwd = `root:x:0:0:root:/root:/bin/bash
alice:x:1000:1000::/tmp:/bin/bash
bob:x:1001:1001::/tmp:/bin/bash
nobody:x:65534:65534::/:/bin/false
`;
const group = `root:x:0:
tty:x:5:
alice:x:1000:
bob:x:1001:
team:x:2000:alice,bob
nogroup:x:65534:
`;

const mountPoints = ['proc', 'sys', 'dev', 'run', 'tmp', 'mnt', 'root', 'scratch', 'opt', 'var/tmp'];

export async function makeRootDisk(archive, files, dir) {
  const root = join(dir, 'tree');
  mkdirSync(root);
  await archive.unpack(files, root, { leaveOut: rootLeftOut });
  for (const point of mountPoints) mkdirSync(join(root, point), { recursive: true });
  writeFileSync(join(root, 'etc/passwd'), passwd);
  writeFileSync(join(root, 'etc/group'), group);
  writeFileSync(join(root, 'etc/hosts'), '127.0.0.1 localhost\n10.0.2.2 host\n');
  symlinkSync('/proc/self/mounts', join(root, 'etc/mtab'));
  rmSync(join(root, 'usr/bin/sh'), { force: true });
  symlinkSync('bash', join(root, 'usr/bin/sh'));
  // The only path in which mount(8) looks for it; the program is in the initramfs.
  symlinkSync('/opt/guest/bin/mount.9pvsock', join(root, 'usr/sbin/mount.9pvsock'));
  chmodSync(root, 0o755);
  const disk = join(dir, 'root.ext4');
  const options = ['-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-L', 'guest-root'];
  execFileSync(findTool('mke2fs'), [...options, '-E', 'root_owner=0:0', '-d', root, disk, '400M'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  rmSync(root, { recursive: true });
}
