import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setAttributeSync } from 'fs-xattr';
import { expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import { Attr } from '#base/attr.ts';
import { Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { inline, pool } from '#host/linux.ts';
import type { Syscalls } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';

/** The same calls, and what happens on the host between two that read an attribute. */
function between(calls: Syscalls, happen: () => void): Syscalls {
  const { getxattr, ...rest } = Object.fromEntries(
    Object.getOwnPropertyNames(Object.getPrototypeOf(calls)).map(method => [
      method,
      (...args: unknown[]) =>
        (calls as unknown as Record<string, (...args: unknown[]) => unknown>)[method]!(...args),
    ]),
  );
  const watched = (...args: unknown[]) => {
    const result = getxattr!(...args);
    happen();
    return result;
  };
  return { ...rest, getxattr: watched } as unknown as Syscalls;
}

// Between asking for a size and reading so many bytes, a value may shrink; what lay in memory behind it must not show.
it.each([
  [3000, 100],
  [100, 3000],
  [600, 3500],
  [600, 0],
])(
  'an attribute of %i bytes that has %i between two calls is given whole, as it was at one time (CVE-2017-15038)',
  async (before, after) => {
    const dir = mkdtempSync(join(tmpdir(), 'ninepd-xattr-'));
    const path = join(dir, 'f');
    writeFileSync(path, '');
    const values = [Buffer.alloc(before, 'b'), Buffer.alloc(after, 'a')];
    let turn = 0;
    const calls = between(inline, () => setAttributeSync(path, 'user.a', values[++turn % 2]!));
    const tree = await LocalTree.open(dir, {
      ...{ inline: calls, pool, descriptors: new FdBudget(16) },
      model: mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined),
    });
    const creds = await tree.credentials(0);
    const node = await tree.walk(creds, tree.root, nameOf('f'), new Attr());
    if (node instanceof Errno) throw node;
    setAttributeSync(path, 'user.a', values[0]!);
    turn = 0;
    const value = Buffer.from(await tree.getXattr(creds, node, 'user.a')).toString('latin1');
    expect(values.map(String)).toContain(value);
    tree.release(node);
    tree.close();
    rmSync(dir, { recursive: true });
  },
);
