// Where results go: bench/results, and on request docs/performance.md and its plot.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, SetupFault, say } from '../scripts/setup.mjs';
import { fidMarkdown } from './fids.mjs';
import { goalMarkdown } from './goals.mjs';
import { guestMarkdown } from './guest.mjs';
import { markdown, measuredOn } from './report.mjs';

const results = join(root, 'bench', 'results');

/** Imported late: the packages exist only after the setup. */
const plotOf = async found => (await import('./plot.mjs')).plot(found);

export async function write(found) {
  mkdirSync(results, { recursive: true });
  writeFileSync(join(results, 'latest.json'), `${JSON.stringify(found, null, 2)}\n`);
  if (found.cases.length > 0) writeFileSync(join(results, 'latest.svg'), await plotOf(found));
  say(`written: ${join(results, 'latest.json')}${found.cases.length > 0 ? ' and latest.svg' : ''}`);
}

/** Replaces the text between a block's markers. */
function replaced(page, name, block) {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from)
    throw new SetupFault(`docs/performance.md has lost its marks "${begin}" and "${end}"`);
  return `${page.slice(0, from)}${begin}\n\n${block}\n\n${page.slice(to)}`;
}

/** Updates the page with this run's results; leaves the rest unchanged. */
export async function publish(found, outcomes) {
  const { on, cases, fids, guest } = found;
  const path = join(root, 'docs', 'performance.md');
  const blocks = {
    goals: cases.length > 0 && `${measuredOn(on)}.\n\n${goalMarkdown(outcomes)}`,
    bench: cases.length > 0 && markdown(found),
    fids: fids.length > 0 && `${measuredOn(on)}.\n\n${fidMarkdown(fids)}`,
    guest: guest.length > 0 && `${measuredOn(on)}.\n\n${guestMarkdown(guest)}`,
  };
  let page = readFileSync(path, 'utf8');
  for (const [name, block] of Object.entries(blocks)) if (block) page = replaced(page, name, block);
  writeFileSync(path, page);
  if (cases.length > 0) writeFileSync(join(root, 'docs', 'performance.svg'), await plotOf(found));
  say('docs/performance.md and its plot are those of this run now');
}
