import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { descriptorLimit, groupNamed, groupsOf, userNamed } from '#host/process.ts';
import { noSession } from '#host/syscalls.ts';

/** The parts of npm's `posix` that are used here; it has no types. */
interface Posix {
  getpwnam(user: string | number): { name: string; uid: number; gid: number };
  getgrnam(group: string | number): { name: string; gid: number; members: string[] };
  getrlimit(resource: 'nofile'): { soft: number | null; hard: number | null };
}
const posix = createRequire(import.meta.url)('posix') as Posix;

const namesIn = (file: string) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .flatMap(line => (line.includes(':') ? [line.split(':')[0]!] : []));

describe('what the addon says of users, groups and limits is what npm’s posix says', () => {
  it.each(namesIn('/etc/passwd'))('of the user %s', async name => {
    const { uid, gid } = posix.getpwnam(name);
    expect(userNamed(name)).toEqual({ uid, gid });
    // Several users may have one uid: the first counts.
    const first = posix.getpwnam(uid);
    const member = namesIn('/etc/group').filter(group => posix.getgrnam(group).members.includes(first.name));
    const expected = [first.gid, ...member.map(group => posix.getgrnam(group).gid)];
    const found = await groupsOf(uid, noSession);
    expect(found?.gid).toBe(first.gid);
    expect(new Set(found?.groups)).toEqual(new Set(expected));
  });

  it.each(namesIn('/etc/group'))('of the group %s', name => {
    expect(groupNamed(name)).toBe(posix.getgrnam(name).gid);
  });

  it('of a user and a group that there are not', async () => {
    expect(() => posix.getpwnam('no-such-user')).toThrow();
    expect(userNamed('no-such-user')).toBeUndefined();
    expect(groupNamed('no-such-group')).toBeUndefined();
    expect(await groupsOf(4_000_000_000, noSession)).toBeUndefined();
  });

  it('of the limit of descriptors', () => {
    expect(descriptorLimit()).toBe(posix.getrlimit('nofile').soft);
  });
});
