// One case: every peer in a process of its own, the peers in turn, several rounds, medians.

import { join } from 'node:path';
import { load } from './load.mjs';
import { peers, Running } from './peers.mjs';

/** Compilers in the server need a while; later rounds find them done. */
const firstWarmup = 0.5;
const warmup = 0.1;

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const amounts = {
  requests: run => run.requests,
  entries: run => run.entries,
  MiB: run => run.bytes / 2 ** 20,
};

function perSecond(run, unit) {
  return (amounts[unit](run) * 1e9) / run.ns;
}

function summary(runs, unit) {
  const of = value => median(runs.map(value));
  return {
    perSecond: of(run => perSecond(run, unit)),
    p50Us: of(run => run.p50 / 1000),
    p99Us: of(run => run.p99 / 1000),
    serverUsPerRequest: of(run => run.serverNs / run.requests / 1000),
    loadUsPerRequest: of(run => run.loadNs / run.requests / 1000),
    rounds: runs.map(run => perSecond(run, unit)),
  };
}

/** The median of the quotients of each round: what disturbs a round disturbs both. */
export function ratio(mine, other) {
  return median(mine.rounds.map((rate, round) => rate / other.rounds[round]));
}

/**
 * Returns the summary of each peer, by name; a peer that does not agree to the case's msize is not among them.
 * `tick` is called after every run.
 */
export async function measure(one, { base, peerNames, rounds, seconds, tick }) {
  const servers = [];
  const runs = new Map();
  try {
    for (const name of peerNames) {
      servers.push(await Running.start(name, join(base, peers[name].tree)));
      runs.set(name, []);
    }
    for (let round = 0; round < rounds; round++) {
      for (const server of servers) {
        const time = one.whole ? 0.001 : seconds;
        const before = one.whole ? 0 : round === 0 ? firstWarmup : warmup;
        // With pauses a server would not be hot for minutes; what cools down between requests are the processor's caches.
        if (one.pause && round === 0) {
          await load(server, { ...one, pause: undefined }, { seconds: firstWarmup, warmup: 0 });
        }
        if (runs.has(server.name)) {
          const run = await load(server, one, { seconds: time, warmup: before });
          if (one.msize && run.msize !== one.msize) runs.delete(server.name);
          else runs.get(server.name).push(run);
        }
        tick?.();
      }
    }
  } finally {
    await Promise.all(servers.map(server => server.stop()));
  }
  return Object.fromEntries([...runs].map(([name, list]) => [name, summary(list, one.unit)]));
}
