// The project's performance goals as data, and their evaluation. A goal limits ratios within one run: `value` returns the
// ratio of one of our servers in a case, or undefined. The worst ratio counts.
import { fidCases } from './fids.mjs';
import { ratio } from './measure.mjs';
import { peers } from './peers.mjs';
import { short } from './report.mjs';

const rate = other => (mine, result) => result[other] && ratio(mine, result[other]);
const ours = ['passthrough', 'mapped'];
const small16 = /^(getattr|walk-getattr-clunk|walk-lopen-clunk) 16$/;
const data16 = /^(read|write) 4 KiB 16$/;
const whole64 = /^(read|write) msize 64 KiB$/;
const wholes = /^(read|write) msize/;

const goals = [
  { title: 'small requests at depth 16, × diod', cases: small16, least: 5, value: rate('diod') },
  { title: 'small requests at depth 16, × C loop', cases: small16, least: 0.5, value: rate('floor') },
  { title: '4 KiB reads and writes at depth 16, × diod', cases: data16, least: 2.5, value: rate('diod') },
  { title: '4 KiB reads and writes at depth 16, × C loop', cases: data16, least: 0.5, value: rate('floor') },
  {
    title: "anything at depth 1: diod's p50 over ours",
    cases: / 1$/,
    least: 1,
    value: (mine, { diod }) => diod && diod.p50Us / mine.p50Us,
  },
  { title: 'reads and writes of the whole msize, × diod', cases: whole64, least: 1.3, value: rate('diod') },
  { title: 'reads and writes of the whole msize, × C loop', cases: wholes, least: 0.8, value: rate('floor') },
  { title: 'readdir, entries × diod', cases: /^readdir/, least: 1, value: rate('diod') },
  {
    title: 'readdir of 1,000,000, × that of 1,000',
    cases: /^readdir 1,000,000$/,
    least: 0.8,
    value: (mine, _, name, all) => against(mine, all, 'readdir 1,000', name),
  },
  {
    title: 'ENOENT on a walk, × requests of a walk that succeeds',
    cases: /^walk ENOENT/,
    least: 1,
    value: (mine, _, name, all, one) =>
      against(mine, all, one.name.replace('walk ENOENT', 'walk-getattr-clunk'), name),
  },
  {
    title: 'mapped × passthrough, getattr and walk',
    cases: /^(getattr|walk-getattr-clunk|walk ENOENT) \d+$/,
    peers: ['mapped'],
    least: 0.75,
    value: rate('passthrough'),
  },
  {
    title: 'server CPU time of a request, × C loop',
    cases: /^(?!.*(apart|readdir|msize)).*$/,
    most: 2,
    value: (mine, { floor }) => floor && mine.serverUsPerRequest / floor.serverUsPerRequest,
  },
  {
    title: 'one process: 64 connections, × the best of fewer',
    cases: /× 64 connections$/,
    least: 0.95,
    value: (mine, _, name, all) =>
      mine.perSecond /
      Math.max(...all.filter(isOfConnections).map(({ result }) => result[name]?.perSecond ?? 0)),
  },
  {
    title: '--workers 2: from 2 connections on, × one process',
    cases: /× ([2-9]|\d\d) connections$/,
    peers: ['workers'],
    least: 1,
    value: rate('mapped'),
  },
];

const isOfConnections = ({ connections }) => connections !== undefined;

/** The rate of one of ours in a case, over its rate in another. */
function against(mine, all, other, name) {
  const theirs = all.find(one => one.name === other)?.result[name];
  return theirs && mine.perSecond / theirs.perSecond;
}

function outcome({ title, least, most }, values) {
  const better = least === undefined ? (a, b) => a.value - b.value : (a, b) => b.value - a.value;
  const [best, worst] = [values.toSorted(better)[0], values.toSorted(better).at(-1)];
  const met = least === undefined ? worst.value <= most : worst.value >= least;
  const [low, high] = [best.value, worst.value].sort((a, b) => a - b).map(short);
  return {
    title,
    goal: least === undefined ? `≤ ${most}` : `≥ ${least}`,
    measured: low === high ? low : `${low} to ${high}`,
    met: met ? 'yes' : 'no',
    worst: met ? '' : worst.what,
  };
}

function ofCases(cases) {
  return goals.flatMap(goal => {
    const values = cases
      .filter(({ name }) => goal.cases.test(name))
      .flatMap(one =>
        (goal.peers ?? ours).flatMap(peer => {
          const mine = one.result[peer];
          const value = mine && goal.value(mine, one.result, peer, cases, one);
          return value === undefined ? [] : [{ value, what: `${one.name}, ${peers[peer].label}` }];
        }),
      );
    return values.length > 0 ? [outcome(goal, values)] : [];
  });
}

const bytesMax = { [fidCases[0].name]: 200, [fidCases[1].name]: 600 };

function ofFids(fids) {
  return fids.map(({ name, result }) => {
    const values = Object.entries(result).map(([peer, { rss }]) => ({ value: rss, what: peers[peer].label }));
    return outcome({ title: `${name}, bytes resident`, most: bytesMax[name] }, values);
  });
}

const listing = /^ls -l/;

function ofGuest(guest) {
  const values = guest.flatMap(({ name, transports }) =>
    Object.entries(transports).flatMap(([transport, { beside, ratio: value }]) =>
      beside ? [{ value, what: `${name}, ${transport}`, name }] : [],
    ),
  );
  const one = (title, least, wanted) => {
    const some = values.filter(({ name }) => wanted(name));
    return some.length > 0 ? [outcome({ title, least }, some)] : [];
  };
  return [
    ...one('in a guest, × QEMU and × diod', 1, () => true),
    ...one('in a guest, ls -l, × QEMU and × diod', 2, name => listing.test(name)),
  ];
}

/** The goals that these results cover. */
export function judged({ cases = [], fids = [], guest = [] }) {
  return [...ofCases(cases), ...ofFids(fids), ...ofGuest(guest)];
}

export function goalLines(outcomes) {
  return outcomes.map(({ title, goal, measured, met, worst }) =>
    `${title.padEnd(54)} ${goal.padEnd(7)} ${measured.padEnd(16)} ${met.padEnd(4)} ${worst}`.trimEnd(),
  );
}

export function goalMarkdown(outcomes) {
  return [
    '| goal | wanted | measured | met | furthest from it |',
    '|---|---|---|---|---|',
    ...outcomes.map(one => `| ${Object.values(one).join(' | ')} |`),
  ].join('\n');
}
