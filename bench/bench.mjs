// `npm run bench`: compares ninepd with its peers. Options and meaning of the results: README.md.
import { mkdirSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { root, runProgram, SetupFault, say } from '../scripts/setup.mjs';
import { cases } from './cases.mjs';
import { fidCases, measureFids } from './fids.mjs';
import { goalLines, judged } from './goals.mjs';
import { commitRatios, falls } from './guard.mjs';
import { measure } from './measure.mjs';
import { peers } from './peers.mjs';
import { progress } from './progress.mjs';
import { publish, write } from './publish.mjs';
import { caseLines, circumstances, heading } from './report.mjs';
import { setUpBench } from './setup.mjs';
import { makeTrees } from './tree.mjs';

const known = {
  quick: { type: 'boolean' },
  guest: { type: 'boolean' },
  cases: { type: 'string' },
  peers: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  minutes: { type: 'string' },
  dir: { type: 'string' },
  publish: { type: 'boolean' },
  'update-ratios': { type: 'boolean' },
};

/** Duration of a run, and the guest's share. */
const minutesMax = { quick: 1.7, full: 9.5 };
const guestShare = 0.25;

function chosenPeers(asked, quick) {
  const usual = Object.keys(peers).filter(name => !peers[name].onlyIfAsked && (!quick || name !== 'diod'));
  const names = asked?.split(',') ?? usual;
  const unknown = names.filter(name => !Object.hasOwn(peers, name));
  if (unknown.length > 0) throw new SetupFault(`no such peer: ${unknown}; there are ${Object.keys(peers)}`);
  // passthrough refuses to start without the privileges it needs.
  const possible = names.filter(name => name !== 'passthrough' || process.getuid() === 0);
  if (possible.length < names.length) say('passthrough is left out: it needs root');
  return possible;
}

function readOptions() {
  const { values } = parseArgs({ options: known });
  const { quick = false } = values;
  const part = values.cases !== undefined || values.peers !== undefined;
  const pattern = new RegExp(values.cases ?? '', 'i');
  const matches = ({ name }) => pattern.test(name);
  const options = {
    ...values,
    quick,
    chosen: values.guest ? [] : cases.filter(one => (!quick || one.quick) && matches(one)),
    chosenFids: values.guest || quick ? [] : fidCases.filter(matches),
    withGuest: values.guest || !(quick || part || process.getuid() !== 0),
    peerNames: chosenPeers(values.peers, quick),
    rounds: Number(values.rounds ?? (quick ? 5 : 9)),
    seconds: Number(values.seconds ?? (quick ? 0.15 : 0.2)),
    base: resolve(values.dir ?? join(root, '.cache', 'bench')),
    minutes: Number(values.minutes ?? minutesMax[quick ? 'quick' : 'full']),
  };
  const { chosen, chosenFids, withGuest } = options;
  if (chosen.length + chosenFids.length === 0 && !withGuest)
    throw new SetupFault(`no case matches ${pattern}`);
  return options;
}

/** The remaining time is divided evenly among the remaining cases. */
function shareOf(end, left) {
  return Date.now() + Math.max(0, end - Date.now()) / left;
}

async function measureCases({ chosen, quick, ...options }, end, show) {
  const measured = [];
  const fallen = [];
  if (chosen.length > 0) show.print(heading);
  for (const [index, one] of chosen.entries()) {
    const until = shareOf(end, chosen.length - index);
    const tick = share => show.at(index + share, one.name);
    let result = await measure(one, { ...options, until, tick });
    // A disturbed machine may look like a regression once; it counts if it appears twice.
    if (quick && falls(one.name, result).length > 0) result = await measure(one, { ...options, until });
    if (quick) fallen.push(...falls(one.name, result));
    measured.push({ ...one, result });
    show.print(caseLines(one, result).join('\n'));
  }
  return { measured, fallen };
}

async function measureAll(options) {
  const { chosen, chosenFids, withGuest, end } = options;
  const { guestCases, measureInGuest } = withGuest ? await import('./guest.mjs') : { guestCases: [] };
  const show = await progress(chosen.length + chosenFids.length + guestCases.length);
  const casesEnd = withGuest && chosen.length > 0 ? end - (end - Date.now()) * guestShare : end;
  const done = { cases: [], fids: [], guest: [] };
  try {
    let at = 0;
    const each = { print: show.print, tick: name => show.at(++at, name) };
    // Cases of fixed duration first.
    done.fids = await measureFids(chosenFids, options, each);
    const { measured, fallen } = await measureCases(options, casesEnd, {
      ...show,
      at: (part, name) => show.at(at + part, name),
    });
    done.cases = measured;
    at += chosen.length;
    if (withGuest) {
      done.guest = await measureInGuest({ rounds: options.rounds, until: end, ...each });
    }
    return { ...done, fallen };
  } finally {
    show.stop();
  }
}

async function main() {
  const options = readOptions();
  const { chosen, chosenFids, peerNames, quick, withGuest } = options;
  setUpBench(withGuest || peerNames.includes('diod'));
  mkdirSync(options.base, { recursive: true });
  options.base = realpathSync(options.base);
  await makeTrees(options.base, [...chosen, ...chosenFids], peerNames);
  // The commit at the start: the sources may change during the run.
  const on = circumstances(options);
  options.end = Date.now() + options.minutes * 60_000;
  const { fallen, ...measured } = await measureAll(options);
  const found = { on, ...measured };
  const outcomes = judged(found);
  if (!quick && outcomes.length > 0) process.stdout.write(`\n${goalLines(outcomes).join('\n')}\n`);
  await write(found);
  if (options.publish) await publish(found, outcomes);
  if (options['update-ratios']) commitRatios(found.cases);
  if (!quick) return;
  for (const text of fallen) say(`slower by more than a third: ${text}`);
  if (fallen.length === 0) say('no ratio against the C loop has fallen by more than a third');
  process.exitCode = fallen.length > 0 && !options['update-ratios'] ? 1 : 0;
}

await runProgram(main);
