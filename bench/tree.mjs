// The exported directories. Those for `mapped` are created through ninepd, so that files have records as from a guest; all
// others through the C loop.
import { existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { say } from '../scripts/setup.mjs';
import { dataBytes } from './cases.mjs';
import { load } from './load.mjs';
import { peers, Running } from './peers.mjs';

/** Files of each directory. */
const counts = { files: 2, made: 0, thousand: 1000, million: 1_000_000 };
const makers = { host: 'floor', mapped: 'mapped' };

async function fill(tree, within, directory, count) {
  const server = await Running.start(makers[tree], directory);
  const steps = ['clone', 'lcreate', 'clunk'];
  try {
    await load(server, { steps, tree: within, depth: 16 }, { count });
  } finally {
    await server.stop();
  }
}

/** Any content, but no hole. */
function writeData(directory) {
  writeFileSync(join(directory, 'f0000000'), Buffer.alloc(4096, 1));
  const big = join(directory, 'f0000001');
  truncateSync(big, 0);
  writeFileSync(big, Buffer.alloc(dataBytes, 2));
}

/** Creates missing directories of the cases below `base`, for the given peers. */
export async function makeTrees(base, cases, peerNames) {
  const trees = new Set(peerNames.map(name => peers[name].tree));
  const names = new Set(cases.map(({ tree }) => tree));
  for (const tree of trees) {
    for (const within of names) {
      const directory = join(base, tree);
      // Written when the directory is complete.
      const stamp = join(base, `${tree}-${within}.made`);
      if (existsSync(stamp)) continue;
      if (counts[within] > 10_000) say(`making ${counts[within]} files in ${tree}: once, a minute or so`);
      rmSync(join(directory, within), { recursive: true, force: true });
      mkdirSync(join(directory, within), { recursive: true });
      if (counts[within] > 0) await fill(tree, within, directory, counts[within]);
      if (within === 'files') writeData(join(directory, within));
      writeFileSync(stamp, '');
    }
  }
}
