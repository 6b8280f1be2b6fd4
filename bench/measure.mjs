// Measures one case: each peer in its own process, one after another, in several rounds; medians.

import { join } from 'node:path';
import { load } from './load.mjs';
import { peers, Running } from './peers.mjs';

/** Warm-up for the server's JIT compilers; shorter in later rounds. */
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

/** The median of each round's ratios: a disturbance affects both values. */
export function ratio(mine, other) {
  return median(mine.rounds.map((rate, round) => rate / other.rounds[round]));
}

/** Minimum number of rounds for a median. */
const roundsMin = 3;

/** Minimum number of rounds; one when no time is left. */
export const leastRounds = until => (Date.now() < until ? roundsMin : 1);

async function runOnce(server, one, seconds, first) {
  // Warm-up without pauses, which would take minutes; pauses only cool the processor's caches.
  if (one.pause && first) {
    await load(server, { ...one, pause: undefined }, { seconds: firstWarmup, warmup: 0 });
  }
  if (one.whole) return load(server, one, { seconds: 0.001, warmup: 0 });
  return load(server, one, { seconds, warmup: first ? firstWarmup : warmup });
}

/**
 * Returns the summary of each peer, by name; a peer that does not agree to the case's msize is not among them. Every other
 * round goes through the peers backwards. No new round is begun after `until`. `tick` is called with the share of the
 * case that is done.
 */
export async function measure(one, { base, peerNames, rounds, seconds, until, tick }) {
  const servers = [];
  const runs = new Map();
  try {
    for (const name of peerNames.filter(name => peers[name].measures?.(one) ?? true)) {
      servers.push(await Running.start(name, join(base, peers[name].tree)));
      runs.set(name, []);
    }
    const least = leastRounds(until);
    for (let round = 0; round < rounds && (round < least || Date.now() < until); round++) {
      for (const server of round % 2 === 0 ? servers : servers.toReversed()) {
        if (!runs.has(server.name)) continue;
        const run = await runOnce(server, one, seconds, round === 0);
        if (one.msize && run.msize !== one.msize) runs.delete(server.name);
        else runs.get(server.name).push(run);
      }
      tick?.((round + 1) / rounds);
    }
  } finally {
    await Promise.all(servers.map(server => server.stop()));
  }
  return Object.fromEntries(
    peerNames.flatMap(name => (runs.has(name) ? [[name, summary(runs.get(name), one.unit)]] : [])),
  );
}
