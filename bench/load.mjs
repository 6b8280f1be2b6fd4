// Runs the load generator once.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { dataBytes } from './cases.mjs';
import { programs } from './setup.mjs';

const execute = promisify(execFile);

/**
 * Puts the load of a case on a running server: for `seconds` after `warmup` seconds, or for `count` sequences. Returns what
 * the generator prints: requests, ns (how long), bytes, entries, p50 and p99 in ns, serverNs and loadNs of processor
 * time, msize as agreed. Throws an Error when the server answers anything but what it should.
 */
export async function load(server, one, { seconds, warmup, count }) {
  const given = {
    connect: server.uri,
    aname: server.aname,
    within: one.tree,
    name: one.file,
    steps: one.steps.join(','),
    open: one.open,
    depth: one.depth,
    connections: one.connections,
    msize: one.msize,
    size: one.size,
    pause: one.pause,
    uid: one.uid ?? process.getuid(),
    'file-bytes': dataBytes,
    seconds,
    warmup,
    count,
  };
  const args = Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  for (const pid of server.pids) args.push('--pid', String(pid));
  const { stdout } = await execute(programs.load, args, { timeout: 600_000 }).catch(error => {
    throw new Error(`${server.name}: ${error.stderr || error.message}${server.said}`);
  });
  return JSON.parse(stdout);
}
