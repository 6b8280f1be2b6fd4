import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const src = join(root, 'src');

/** What a folder of src may import besides itself, from the bottom up. `types` may be imported by `import type` only. */
const layers: Readonly<Record<string, { values: readonly string[]; types?: readonly string[] }>> = {
  base: { values: [] },
  quota: { values: [], types: ['base'] },
  protocol: { values: ['base', 'quota'] },
  host: { values: ['base', 'quota'] },
  security: { values: ['base', 'quota', 'host'] },
  backend: { values: ['base', 'quota', 'host', 'protocol', 'security'] },
  session: { values: ['base', 'quota', 'protocol'], types: ['host', 'backend'] },
  exports: { values: ['base', 'quota', 'host', 'security', 'backend'], types: ['session', 'transport'] },
  transport: { values: ['base', 'quota', 'host', 'protocol', 'session'] },
  workers: { values: ['base', 'host', 'transport'] },
  client: { values: ['base', 'quota', 'protocol'] },
};

/** What puts the parts together may import anything. */
const tops = ['cli', 'connections', 'server', 'index'];

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

/** A relative import or a subpath import (`#base/errno.ts`). */
function target(from: string, specifier: string): string {
  return specifier.startsWith('#') ? join(src, specifier.slice(1)) : join(dirname(from), specifier);
}

function importsOf(path: string): Import[] {
  const text = readFileSync(path, 'utf8');
  const found = text.matchAll(/^(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?['"]([#.][^'"]+)['"]/gm);
  const later = text.matchAll(/\bimport\(\s*(?:()['"]([#.][^'"]+)['"])/g);
  return [...found, ...later].map(([statement, typeOnly, to]) => ({
    from: path,
    to: target(path, to!),
    typeOnly: typeOnly !== undefined && typeOnly !== '' ? true : onlyTypes(statement!),
  }));
}

/** `import { type A, type B } from` imports no value either. */
function onlyTypes(statement: string): boolean {
  const names = /\{([^}]*)\}/
    .exec(statement)?.[1]
    ?.split(',')
    .filter(name => name.trim() !== '');
  return names !== undefined && names.length > 0 && names.every(name => name.trim().startsWith('type '));
}

/** Names that a file imports from others, or exports again; `*` for all. */
function usesOf(path: string): { readonly to: string; readonly name: string }[] {
  const text = readFileSync(path, 'utf8');
  const statements = [
    ...text.matchAll(/^(?:import|export)\s+(?:type\s+)?([^'";]*?)\s+from\s+['"]([#.][^'"]+)['"]/gm),
    ...text.matchAll(/const (\{[^}]*\}) = await import\(['"]([#.][^'"]+)['"]\)/g),
  ];
  return statements.flatMap(([, names, to]) =>
    names!
      .replace(/[{}]/g, '')
      .split(',')
      .map(name => ({
        to: target(path, to!),
        name: name
          .trim()
          .replace(/^type /, '')
          .split(/[ :]/)[0]!,
      })),
  );
}

/** Each set of files that import each other, directly or through others (Tarjan's strongly connected components). */
function cycles(): string[] {
  const found: string[] = [];
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const visit = (path: string): void => {
    index.set(path, index.size);
    low.set(path, index.get(path)!);
    stack.push(path);
    for (const { to } of importsOf(path)) {
      if (!index.has(to)) visit(to);
      if (stack.includes(to)) low.set(path, Math.min(low.get(path)!, low.get(to)!));
    }
    if (low.get(path) !== index.get(path)) return;
    const component = stack.splice(stack.indexOf(path));
    if (component.length > 1)
      found.push(
        component
          .map(one => relative(src, one))
          .sort()
          .join(' '),
      );
  };
  for (const path of sources) if (!index.has(path)) visit(path);
  return found;
}

describe('the layers', () => {
  it('have a rule for every folder and file of src', () => {
    const known = [...Object.keys(layers), ...tops, 'ARCHITECTURE.md'];
    const there = readdirSync(src).map(name => name.replace(/\.ts$/, ''));
    expect(there.filter(name => !known.includes(name))).toEqual([]);
  });

  it('name no import that nobody makes', () => {
    const made = new Set(
      sources
        .flatMap(importsOf)
        .map(({ from, to, typeOnly }) => `${layerOf(from)} ${layerOf(to)} ${typeOnly}`),
    );
    const unused = Object.entries(layers).flatMap(([from, { values, types = [] }]) => [
      ...values.filter(to => !made.has(`${from} ${to} false`)).map(to => `${from} imports ${to}`),
      ...types.filter(to => !made.has(`${from} ${to} true`)).map(to => `${from} imports types of ${to}`),
    ]);
    expect(unused).toEqual([]);
  });

  it('import downwards only', () => {
    const wrong = sources
      .filter(path => !tops.includes(layerOf(path)))
      .flatMap(importsOf)
      .filter(({ from, to, typeOnly }) => {
        const own = layerOf(from);
        const other = layerOf(to);
        const { values, types = [] } = layers[own]!;
        return !(other === own || values.includes(other) || (typeOnly && types.includes(other)));
      });
    expect(wrong.map(({ from, to }) => `${relative(src, from)} imports ${relative(src, to)}`)).toEqual([]);
  });

  it('let transports see nothing of a session but its exchange', () => {
    const seen = sources
      .filter(path => layerOf(path) === 'transport')
      .flatMap(importsOf)
      .filter(({ to }) => layerOf(to) === 'session')
      .map(({ to }) => relative(src, to));
    expect([...new Set(seen)]).toEqual(['session/exchange.ts']);
  });

  it('have no import cycle between files, types included', () => {
    expect(cycles()).toEqual([]);
  });

  it('export no value that neither another file of src nor a test imports', () => {
    const all = [...sources, ...['test', 'bench', 'scripts'].flatMap(name => filesBelow(join(root, name)))];
    const uses = all.filter(path => /\.(ts|mjs)$/.test(path)).flatMap(usesOf);
    const used = new Set(uses.map(({ to, name }) => `${to} ${name}`));
    const unused = sources.flatMap(path =>
      [
        ...readFileSync(path, 'utf8').matchAll(
          /^export (?:abstract |async )*(?:class|const|function\*?|let) (\w+)/gm,
        ),
      ]
        .map(([, name]) => name!)
        .filter(name => !used.has(`${path} ${name}`) && !used.has(`${path} *`))
        .map(name => `${relative(src, path)} exports ${name}`),
    );
    expect(unused).toEqual([]);
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

  it('have no file of more than 500 lines', () => {
    const long = all.filter(path => readFileSync(path, 'utf8').split('\n').length > 501);
    expect(long.map(path => relative(root, path))).toEqual([]);
  });

  it('have no file or folder whose name says nothing', () => {
    const empty = all.filter(path =>
      /(^|\/)(utils?|helpers?|commons?|managers?)(\.|\/)/.test(relative(root, path)),
    );
    expect(empty.map(path => relative(root, path))).toEqual([]);
  });
});
