import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const src = join(root, 'src');

/**
 * What a layer may import besides itself, from the bottom up. A file directly in src that is named here is a layer of its
 * own; `types` may be imported by `import type` only.
 */
const layers: Readonly<Record<string, { values: readonly string[]; types?: readonly string[] }>> = {
  errno: { values: [] },
  owned: { values: [] },
  batch: { values: [] },
  turn: { values: [] },
  limits: { values: [] },
  answer: { values: [] },
  log: { values: [] },
  'start-faults': { values: [] },
  'sparing-log': { values: ['log'] },
  party: { values: [], types: ['session'] },
  name: { values: ['errno'] },
  attr: { values: ['name', 'errno'] },
  protocol: { values: ['answer', 'attr', 'errno', 'limits', 'name'], types: ['host'] },
  host: { values: ['answer', 'attr', 'errno', 'limits', 'name', 'owned', 'turn'] },
  security: { values: ['answer', 'attr', 'errno', 'limits', 'name', 'owned', 'host'], types: ['tree'] },
  tree: {
    values: ['answer', 'attr', 'batch', 'errno', 'limits', 'name', 'owned', 'host', 'security', 'protocol'],
  },
  session: {
    values: ['answer', 'attr', 'errno', 'limits', 'log', 'name', 'owned', 'protocol', 'tree', 'turn'],
    types: ['host', 'security'],
  },
  transport: {
    values: [
      'batch',
      'errno',
      'limits',
      'log',
      'name',
      'owned',
      'protocol',
      'session',
      'start-faults',
      'host',
    ],
  },
  workers: {
    values: ['errno', 'limits', 'log', 'party', 'sparing-log', 'start-faults', 'transport', 'host'],
    types: ['session'],
  },
  client: { values: ['answer', 'attr', 'errno', 'limits', 'name', 'protocol'] },
};

/** Files that may import anything: what puts the parts together. */
const tops = ['cli', 'connections', 'server', 'exports', 'export-checks', 'exposure', 'finder', 'index'];

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name);
    if (entry.name === 'node_modules' || entry.name === 'build') return [];
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

const sources = filesBelow(src).filter(path => path.endsWith('.ts'));
const layerOf = (path: string): string => relative(src, path).split('/')[0]!.replace(/\.ts$/, '');

function importsOf(path: string): Import[] {
  const text = readFileSync(path, 'utf8');
  const found = text.matchAll(/^(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?['"](\.[^'"]+)['"]/gm);
  const later = text.matchAll(/\bimport\(\s*(?:()['"](\.[^'"]+)['"])/g);
  return [...found, ...later].map(([statement, typeOnly, to]) => ({
    from: relative(root, path),
    to: join(dirname(path), to!),
    typeOnly: typeOnly !== undefined && typeOnly !== '' ? true : onlyTypes(statement!),
  }));
}

/** `import { type A, type B } from` brings no value either. */
function onlyTypes(statement: string): boolean {
  const names = /\{([^}]*)\}/
    .exec(statement)?.[1]
    ?.split(',')
    .filter(name => name.trim() !== '');
  return names !== undefined && names.length > 0 && names.every(name => name.trim().startsWith('type '));
}

describe('the layers', () => {
  it('have a rule for every folder and file of src', () => {
    const known = [...Object.keys(layers), ...tops, 'ARCHITECTURE.md'];
    const there = readdirSync(src).map(name => name.replace(/\.ts$/, ''));
    expect(there.filter(name => !known.includes(name))).toEqual([]);
  });

  it('import downwards only', () => {
    const wrong = sources
      .filter(path => !tops.includes(layerOf(path)))
      .flatMap(importsOf)
      .filter(({ from, to, typeOnly }) => {
        const own = layerOf(join(root, from));
        const other = layerOf(to);
        const { values, types = [] } = layers[own]!;
        return !(other === own || values.includes(other) || (typeOnly && types.includes(other)));
      });
    expect(wrong.map(({ from, to }) => `${from} imports ${relative(root, to)}`)).toEqual([]);
  });

  it('let transports see of a session nothing but its door', () => {
    const seen = sources
      .filter(path => layerOf(path) === 'transport')
      .flatMap(importsOf)
      .filter(({ to }) => layerOf(to) === 'session')
      .map(({ to }) => relative(src, to));
    expect([...new Set(seen)]).toEqual(['session/door.ts']);
  });

  it('load the native addon in one place', () => {
    const loading = sources.filter(path =>
      /createRequire|process\.dlopen|\.node['"]/.test(readFileSync(path, 'utf8')),
    );
    expect(loading.map(path => relative(src, path))).toEqual(['host/addon.ts']);
  });
});

describe('the sources', () => {
  const all = ['src', 'test', 'scripts', 'native-shims', 'bench']
    .filter(name => readdirSync(root).includes(name))
    .flatMap(name => filesBelow(join(root, name)))
    .filter(path => /\.(ts|mjs|c|h)$/.test(path));

  it('have no file of more than 400 lines', () => {
    const long = all.filter(path => readFileSync(path, 'utf8').split('\n').length > 401);
    expect(long.map(path => relative(root, path))).toEqual([]);
  });

  it('have no file or folder whose name says nothing', () => {
    const empty = all.filter(path =>
      /(^|\/)(utils?|helpers?|commons?|managers?)(\.|\/)/.test(relative(root, path)),
    );
    expect(empty.map(path => relative(root, path))).toEqual([]);
  });
});
