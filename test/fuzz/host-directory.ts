import { chmodSync, lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalTree } from '../../src/backend/local/local-tree.ts';
import { FdBudget } from '../../src/quota/fd-budget.ts';
import type { SecurityModel } from '../../src/security/model.ts';
import { heldBy } from '../support/descriptors.ts';
import { assert } from './choices.ts';

/** Few, so that descriptors are evicted and reopened; two thirds suffice for the open files of sequences. */
const descriptorsMax = 48;
const waitMsMax = 5000;

/** Descriptors of this process that are open below a directory. */
function heldBelow(directory: string): string[] {
  return heldBy().filter(link => link.startsWith(directory));
}

/** Descriptors still open after a while: some are closed by threads. */
async function leftBelow(directory: string): Promise<string[]> {
  const end = performance.now() + waitMsMax;
  for (;;) {
    const left = heldBelow(directory);
    if (left.length === 0 || performance.now() > end) return left;
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** The tree below a directory of the host, with lstat(2) results. */
export function objectsBelow(directory: string): { path: string; mode: number; uid: number; gid: number }[] {
  const names = readdirSync(directory, { encoding: 'buffer' });
  return names.flatMap(name => objectsAt(Buffer.concat([Buffer.from(`${directory}/`), name])));
}

function objectsAt(path: Buffer): { path: string; mode: number; uid: number; gid: number }[] {
  const { mode, uid, gid } = lstatSync(path);
  const isDirectory = (mode & 0o170000) === 0o040000;
  const names = isDirectory ? readdirSync(path, { encoding: 'buffer' }) : [];
  const below = names.flatMap(name => objectsAt(Buffer.concat([path, Buffer.from('/'), name])));
  return [{ path: path.toString('latin1'), mode, uid, gid }, ...below];
}

/** Runs `act` on a tree of an empty directory, then removes that and checks for open descriptors. */
export async function withDirectory(
  model: SecurityModel,
  act: (tree: LocalTree, directory: string) => Promise<void>,
): Promise<void> {
  process.umask(0);
  const directory = mkdtempSync(join(tmpdir(), 'ninepd-fuzz-'));
  chmodSync(directory, 0o755);
  try {
    const descriptors = new FdBudget(descriptorsMax);
    const tree = await LocalTree.open(directory, { descriptors, model });
    try {
      await act(tree, directory);
    } finally {
      tree.close();
    }
    const left = await leftBelow(directory);
    assert(left.length === 0, () => `descriptors are left: ${left}`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
