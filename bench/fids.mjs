// Memory of the server for each fid, with a million fids.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { root } from '../scripts/setup.mjs';
import { startLoad } from './load.mjs';
import { peers } from './peers.mjs';
import { short } from './report.mjs';

const count = 1_000_000;
/** Compiles code and allocates buffers before the measurement. */
const warmUp = 20_000;

export const fidCases = [
  { name: 'memory of a fid, shared node', tree: 'files', file: 'f0000000' },
  { name: 'memory of a fid, distinct node', tree: 'million' },
];

async function ask(server) {
  server.send('memory');
  const [answer] = await once(server, 'message');
  return answer;
}

/** Bytes for each fid: of the resident set, and of V8's heap with external memory. */
async function measureOne(one, name, base) {
  const directory = join(base, peers[name].tree);
  const server = fork(join(root, 'bench', 'fid-server.mjs'), [directory, name], {
    execArgv: ['--expose-gc'],
  });
  try {
    const [{ uri }] = await once(server, 'message');
    const target = { name, uri, aname: directory, pids: [] };
    const hold = { ...one, steps: ['hold'], depth: 16 };
    const held = async number => {
      const load = await startLoad(target, hold, { count: number, stay: true });
      const memory = await ask(server);
      await load.end();
      return memory;
    };
    const before = await held(warmUp);
    const after = await held(count);
    const each = key => (after[key] - before[key]) / (count - warmUp);
    return { rss: each('rss'), heap: each('heap') };
  } finally {
    server.disconnect();
    await once(server, 'exit');
  }
}

/**
 * Returns for each case and each of ours { rss, heap } in bytes for one fid. `print` gets the lines of each case, `tick` its
 * name when it is done.
 */
export async function measureFids(chosen, { base, peerNames }, { print, tick }) {
  const names = peerNames.filter(name => peers[name].model && !peers[name].measures);
  const found = [];
  for (const one of chosen) {
    const result = {};
    for (const name of names) {
      result[name] = await measureOne(one, name, base);
    }
    found.push({ name: one.name, result });
    print(lines(found.at(-1)).join('\n'));
    tick(one.name);
  }
  return found;
}

const cells = ({ name, result }) =>
  Object.entries(result).map(([peer, { rss, heap }], index) => [
    index === 0 ? name : '',
    peers[peer].label,
    short(rss),
    short(heap),
  ]);

function lines(found) {
  return cells(found).map(
    ([name, label, rss, heap]) =>
      `${name.padEnd(32)} ${label.padEnd(24)} ${rss.padStart(12)} bytes resident, ${heap} of them in V8`,
  );
}

export function fidMarkdown(found) {
  return [
    '| a million fids held | peer | bytes of a fid, resident | of these in V8 |',
    '|---|---|--:|--:|',
    ...found.flatMap(cells).map(row => `| ${row.join(' | ')} |`),
  ].join('\n');
}
