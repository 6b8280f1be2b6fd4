import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setAttributeSync } from 'fs-xattr';
import { expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import { Attr } from '#base/attr.ts';
import { Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { contextOf } from '../../support/context.ts';
import { interceptCalls } from '../../support/intercept-calls.ts';

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
    const tree = await LocalTree.open(dir, {
      descriptors: new FdBudget(16),
      model: mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined),
    });
    const ctx = contextOf(await tree.credentials(noSession, 0));
    const node = await tree.walk(ctx, tree.root, nameOf('f'), new Attr());
    if (node instanceof Errno) throw node;
    setAttributeSync(path, 'user.a', values[0]!);
    let reads = 0;
    const stop = interceptCalls((name, call, args) => {
      const result = call();
      if (name === 'getxattr' && args[2] === 'user.a') setAttributeSync(path, 'user.a', values[++reads % 2]!);
      return result;
    });
    try {
      const value = Buffer.from(await tree.getXattr(ctx, node, 'user.a')).toString('latin1');
      expect(values.map(String)).toContain(value);
      expect(reads).toBeGreaterThan(0);
    } finally {
      stop();
    }
    tree.release(node);
    tree.close();
    rmSync(dir, { recursive: true });
  },
);
