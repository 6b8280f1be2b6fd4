import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';

const readelf = (...args: string[]) => execFileSync('readelf', args, { encoding: 'utf8' });

const machines: Record<string, string> = { x64: 'X86-64', arm64: 'AArch64' };
const libraries: Record<string, string[]> = {
  glibc: ['libc.so.6', 'libpthread.so.0'],
  musl: ['libc.so'],
};
/** The oldest glibc that it must run with: that of RHEL 8, which Node.js 20 needs too. */
const oldest = 28;

/** The addon and its programs in `folder`: for the architecture, of that C library alone, and of no newer version than is promised. */
export function checkBinary(folder: string, target: string): void {
  const [arch = '', libc = ''] = target.split('-');
  for (const name of ['native-shims.node', 'ninepd-groups', 'ninepd-launch']) {
    const path = join(folder, name);
    expect(readelf('-h', path), path).toMatch(new RegExp(`Machine:.*${machines[arch]}`));
    const needed = [...readelf('-d', path).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(match => match[1]);
    expect(needed, path).toEqual(libraries[libc]);
    const versions = [...readelf('-V', path).matchAll(/GLIBC_([A-Z0-9_.]+)/g)].map(match => match[1]!);
    const newer = versions.filter(version => !(Number(/^2\.(\d+)(\.\d+)?$/.exec(version)?.[1]) <= oldest));
    expect(newer, path).toEqual([]);
    if (libc === 'musl') expect(versions, path).toEqual([]);
  }
  for (const name of ['ninepd-groups', 'ninepd-launch'])
    expect(statSync(join(folder, name)).mode & 0o111).toBe(0o111);
}
