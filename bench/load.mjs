// Runs the load generator.
import { spawn } from 'node:child_process';
import { dataBytes } from './cases.mjs';
import { programs } from './setup.mjs';

const runMsMax = 600_000;

function argumentsFor(server, one, { seconds, warmup, count, stay }) {
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
  return stay ? [...args, '--stay'] : args;
}

/**
 * Runs a case against a server: for `seconds` after `warmup` seconds, or for `count` sequences. Resolves to the generator's
 * output: requests, ns (duration), bytes, entries, p50 and p99 in ns, serverNs and loadNs of processor time, the negotiated
 * msize. With `stay` it keeps its connection until `end`. Rejects on a wrong reply.
 */
export async function startLoad(server, one, how) {
  const child = spawn(programs.load, argumentsFor(server, one, how), {
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: runMsMax,
  });
  let printed = '';
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', text => {
    complaint += text;
  });
  child.on('error', error => {
    complaint += error.message;
  });
  const closed = new Promise(resolve => child.on('close', resolve));
  for await (const text of child.stdout.setEncoding('utf8')) {
    printed += text;
    if (how.stay && printed.endsWith('\n')) break;
  }
  const end = async () => {
    child.stdin.end();
    await closed;
  };
  if (!how.stay) await end();
  if (!printed.endsWith('\n')) throw new Error(`${server.name}: ${complaint}${server.said ?? ''}`);
  return { result: JSON.parse(printed), end };
}

export async function load(server, one, how) {
  return (await startLoad(server, one, how)).result;
}
