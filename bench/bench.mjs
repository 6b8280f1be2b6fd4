// `npm run bench`: measures ninepd beside its peers. See README.md for the options and how to read what comes out.
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { root, SetupFault, say } from '../scripts/setup.mjs';
import { cases } from './cases.mjs';
import { commitRatios, falls } from './guard.mjs';
import { measure } from './measure.mjs';
import { peers } from './peers.mjs';
import { caseLines, circumstances, heading, markdown } from './report.mjs';
import { setUpBench } from './setup.mjs';
import { makeTrees } from './tree.mjs';

const results = join(root, 'bench', 'results');
const marks = ['<!-- bench: begin -->', '<!-- bench: end -->'];

const known = {
  quick: { type: 'boolean' },
  guest: { type: 'boolean' },
  cases: { type: 'string' },
  peers: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  dir: { type: 'string' },
  publish: { type: 'boolean' },
  'update-ratios': { type: 'boolean' },
};

function readOptions() {
  const { values } = parseArgs({ options: known });
  const { quick = false } = values;
  const pattern = new RegExp(values.cases ?? '', 'i');
  const chosen = cases.filter(one => (!quick || one.quick) && pattern.test(one.name));
  const asked = values.peers?.split(',') ?? Object.keys(peers).filter(name => !quick || name !== 'diod');
  const unknown = asked.filter(name => !Object.hasOwn(peers, name));
  if (unknown.length > 0) throw new SetupFault(`no such peer: ${unknown}; there are ${Object.keys(peers)}`);
  if (chosen.length === 0) throw new SetupFault(`no case matches ${pattern}`);
  // passthrough refuses to start without the privileges it needs.
  const peerNames = asked.filter(name => name !== 'passthrough' || process.getuid() === 0);
  if (peerNames.length < asked.length) say('passthrough is left out: it needs root');
  return {
    ...values,
    quick,
    chosen,
    peerNames,
    rounds: Number(values.rounds ?? (quick ? 5 : 7)),
    seconds: Number(values.seconds ?? (quick ? 0.15 : 0.5)),
    base: resolve(values.dir ?? join(root, '.cache', 'bench')),
  };
}

/** The table goes to standard output, the bar to standard error; on a terminal the lines go above the bar. */
async function display(total) {
  if (!process.stderr.isTTY)
    return { print: text => process.stdout.write(`${text}\n`), tick() {}, stop() {} };
  const { default: progress } = await import('cli-progress');
  const format = '{bar} {percentage} % | {eta_formatted} left | {name}';
  const all = new progress.MultiBar({ format, hideCursor: true, clearOnComplete: true });
  const bar = all.create(total, 0, { name: '' });
  return {
    print: text => (process.stdout.isTTY ? all.log(`${text}\n`) : process.stdout.write(`${text}\n`)),
    tick: name => bar.increment({ name }),
    stop: () => all.stop(),
  };
}

async function measureAll(options) {
  const { chosen, peerNames, rounds } = options;
  const show = await display(chosen.length * peerNames.length * rounds);
  const measured = [];
  const fallen = [];
  try {
    show.print(heading);
    for (const one of chosen) {
      const run = tick => measure(one, { ...options, tick });
      let result = await run(() => show.tick(one.name));
      // A disturbed machine looks like a fall once; twice it is believed.
      if (options.quick && falls(one.name, result).length > 0) result = await run();
      if (options.quick) fallen.push(...falls(one.name, result));
      measured.push({ ...one, result });
      show.print(caseLines(one, result).join('\n'));
    }
  } finally {
    show.stop();
  }
  return { measured, fallen };
}

async function write(found, publish) {
  const { plot } = await import('./plot.mjs');
  mkdirSync(results, { recursive: true });
  const svg = plot(found);
  writeFileSync(join(results, 'latest.json'), `${JSON.stringify(found, null, 2)}\n`);
  writeFileSync(join(results, 'latest.svg'), svg);
  say(`written: ${join(results, 'latest.json')} and latest.svg`);
  if (!publish) return;
  const page = join(root, 'docs', 'performance.md');
  const text = readFileSync(page, 'utf8');
  const [begin, end] = marks.map(mark => text.indexOf(mark));
  const block = `${marks[0]}\n\n${markdown(found)}\n\n`;
  writeFileSync(page, text.slice(0, begin) + block + text.slice(end));
  writeFileSync(join(root, 'docs', 'performance.svg'), svg);
  say('docs/performance.md and its plot are those of this run now');
}

async function main() {
  const options = readOptions();
  const { chosen, peerNames, quick } = options;
  setUpBench(options.guest || peerNames.includes('diod'));
  if (options.guest) {
    const { measureInGuest } = await import('./guest.mjs');
    await measureInGuest({ rounds: options.rounds, results });
    return;
  }
  mkdirSync(options.base, { recursive: true });
  options.base = realpathSync(options.base);
  await makeTrees(options.base, chosen, peerNames);
  const { measured, fallen } = await measureAll(options);
  await write({ on: circumstances(options), cases: measured }, options.publish);
  if (options['update-ratios']) commitRatios(measured);
  if (!quick) return;
  for (const text of fallen) say(`slower by more than a third: ${text}`);
  if (fallen.length === 0) say('no ratio against the C loop has fallen by more than a third');
  process.exitCode = fallen.length > 0 && !options['update-ratios'] ? 1 : 0;
}

try {
  await main();
} catch (error) {
  if (!(error instanceof SetupFault) && !error.code?.startsWith?.('ERR_PARSE_ARGS')) throw error;
  say(error.message);
  process.exitCode = 2;
}
