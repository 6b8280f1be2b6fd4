// Results as a text table, as Markdown and as JSON.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { root } from '../scripts/setup.mjs';
import { ratio } from './measure.mjs';
import { peers } from './peers.mjs';

const columns = [
  { title: 'case', width: -32 },
  { title: 'peer', width: -24 },
  { title: 'per second', width: 17 },
  { title: 'p50 µs', width: 9 },
  { title: 'p99 µs', width: 9 },
  { title: 'CPU µs', width: 8 },
  { title: '× C loop', width: 9 },
  { title: '× diod', width: 8 },
  { title: '× passthrough', width: 13 },
];

const line = cells =>
  cells
    .map((cell, at) => {
      const { width } = columns[at];
      return width < 0 ? cell.padEnd(-width) : cell.padStart(width);
    })
    .join(' ')
    .trimEnd();

export const heading = line(columns.map(({ title }) => title));

/** Three digits; empty for a missing value. */
export const short = value =>
  value === undefined
    ? ''
    : value >= 100
      ? Math.round(value).toLocaleString('en')
      : value.toFixed(value >= 10 ? 1 : 2);

function rows(one, result) {
  const { floor, diod, passthrough } = result;
  return Object.entries(result).map(([name, it], index) => [
    index === 0 ? one.name : '',
    peers[name].label,
    `${short(it.perSecond)} ${one.unit === 'requests' ? '' : one.unit}`.trim(),
    short(it.p50Us),
    short(it.p99Us),
    short(it.serverUsPerRequest),
    floor ? short(ratio(it, floor)) : '',
    diod ? short(ratio(it, diod)) : '',
    passthrough && name === 'mapped' ? short(ratio(it, passthrough)) : '',
  ]);
}

/** The lines of a case. */
export function caseLines(one, result) {
  return rows(one, result).map(line);
}

const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: 'pipe' }).trim();

/** The machine and versions of the run. */
export function circumstances(options) {
  let commit = 'unknown';
  try {
    commit = git('describe', '--always', '--dirty');
  } catch {
    // Not a checkout.
  }
  const [processor] = cpus();
  return {
    date: new Date().toISOString().slice(0, 10),
    commit,
    node: process.version,
    kernel: release(),
    processor: `${cpus().length} × ${processor?.model.trim() ?? 'unknown'}`,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    fileSystem: fileSystemOf(options.base),
    rounds: options.rounds,
    seconds: options.seconds,
  };
}

function fileSystemOf(path) {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map(mount => mount.split(' '))
    .filter(([, at]) => at && (path === at || path.startsWith(at === '/' ? at : `${at}/`)))
    .sort(([, a], [, b]) => b.length - a.length);
  return mounts[0]?.[2] ?? 'unknown';
}

/** Machine and date for a block of docs/performance.md. */
export const measuredOn = on =>
  `Measured on ${on.date} at commit \`${on.commit}\`: ${on.processor}, ${on.memoryGiB} GiB, Linux ${on.kernel}, Node.js ` +
  `${on.node}, ${on.fileSystem}`;

/** The table of the cases. */
export function markdown({ on, cases }) {
  const head = [
    `${measuredOn(on)}; medians of up to ${on.rounds} rounds of ${on.seconds} s each.`,
    '',
    '![Requests, entries and bytes per second, compared with the C loop](performance.svg)',
    '',
    `| ${columns.map(({ title }) => title).join(' | ')} |`,
    `|${columns.map(({ width }) => (width < 0 ? '---' : '--:')).join('|')}|`,
  ];
  const body = cases.flatMap(({ result, ...one }) =>
    rows(one, result).map(cells => `| ${cells.join(' | ')} |`),
  );
  return [...head, ...body].join('\n');
}
