import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ownTarget, publishedTargets } from '../../native-shims/targets.mjs';
import { installPackage } from '../../scripts/install-package.mjs';
import { checkBinary } from './binary.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
let unpacked: string;
let names: string[];

beforeAll(() => {
  const { tarball } = installPackage();
  unpacked = mkdtempSync(join(tmpdir(), 'ninepd-packed-'));
  execFileSync('tar', ['-xzf', tarball, '-C', unpacked, '--strip-components=1']);
  names = readdirSync(unpacked, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(unpacked.length + 1))
    .sort();
});
afterAll(() => rmSync(unpacked, { recursive: true, force: true }));

const below = (folder: string) => names.filter(name => name.startsWith(`${folder}/`));

describe('the tarball', () => {
  test('has nothing but the program, the addon, the documents, the examples and the license', () => {
    const rest = names.filter(name => !/^(dist|docs|examples|native-shims\/build)\//.test(name));
    expect(rest).toEqual(['CHANGELOG.md', 'LICENSE', 'README.md', 'SECURITY.md', 'package.json']);
    expect(below('examples').filter(name => !name.endsWith('.mjs'))).toEqual([]);
    expect(below('docs').filter(name => !/\.(md|svg)$/.test(name))).toEqual([]);
  });

  test('has of each source the code and the types, and no source map', () => {
    const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
    const modules = sources.filter(name => name.endsWith('.ts')).map(name => name.slice(0, -3));
    const expected = modules.flatMap(name => [`dist/${name}.js`, `dist/${name}.d.ts`]);
    expect(below('dist')).toEqual(expected.sort());
  });

  test('has the addon and its programs for this machine, and for others that are published', () => {
    const targets = [...new Set(below('native-shims').map(name => name.split('/')[2]!))];
    expect(targets).toContain(ownTarget());
    expect(publishedTargets).toEqual(expect.arrayContaining(targets));
    const expected = targets.flatMap(target =>
      ['native-shims.node', 'ninepd-groups', 'ninepd-launch'].map(
        name => `native-shims/build/${target}/${name}`,
      ),
    );
    expect(below('native-shims')).toEqual(expected);
    for (const target of targets) checkBinary(join(unpacked, 'native-shims/build', target), target);
  });

  test('runs nothing when it is installed', () => {
    const { scripts } = JSON.parse(readFileSync(join(unpacked, 'package.json'), 'utf8'));
    expect(Object.keys(scripts).filter(name => /^(pre|post)?install$/.test(name))).toEqual([]);
  });

  test('has no document with a link to a file that is not there', () => {
    const documents = names.filter(name => name.endsWith('.md'));
    const broken = documents.flatMap(name => {
      const text = readFileSync(join(unpacked, name), 'utf8');
      return [...text.matchAll(/\]\((?!https?:)([^)#\s]+)/g)]
        .map(([, link]) => join(name, '..', link!))
        .filter(path => path.startsWith('docs/') && !names.includes(path));
    });
    expect(broken).toEqual([]);
  });
});
