import { chmodSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { canServe, dir, refused, root, start } from './cli-program.ts';

const listen = ['--listen', 'tcp://127.0.0.1:0'];

/** Writes a module into a folder where `ninepd` is this repository. Returns its path. */
function moduleWith(text: string, folder = join(dir, 'tree')): string {
  mkdirSync(join(folder, 'node_modules'), { recursive: true });
  symlinkSync(root, join(folder, 'node_modules', 'ninepd'));
  const path = join(folder, 'tree.mjs');
  writeFileSync(path, text);
  return path;
}

/** A module whose tree has one file, with the text that an expression gives. */
const oneFile = (expression: string) => `
import * as fs from 'node:fs';
import { ReadOnlyTree } from 'ninepd/backend';
class OneFile extends ReadOnlyTree {
  list() { return [['file', { type: 'file' }]]; }
  attributes() { return { size: 1000 }; }
  bytes(file, offset) { return this.text.subarray(offset); }
}
export default async function makeTree({ source, name, warn }) {
  const tree = new OneFile({ type: 'directory' }, { warn });
  tree.text = Buffer.from(String(${expression}));
  return tree;
}
`;

async function textServed(path: string, more: readonly string[] = [], settings = ''): Promise<string> {
  const running = start(['serve', '--export', `${path},name=one${settings}`, ...listen, ...more]);
  const client = await Client.connect({ port: await running.port() });
  const fid = await client.walk(await client.attach('one', 0), 'file');
  await client.lopen(fid);
  const text = (await client.read(fid, 0, 1000)).toString();
  client.wire.socket.destroy();
  return text;
}

describe('a module that makes a tree', () => {
  it('gets its source as an absolute path, its name, and the environment', async () => {
    writeFileSync(join(dir, 'data'), 'the data');
    const path = moduleWith(
      oneFile("[source, name, fs.readFileSync(source, 'utf8'), process.env.HOME !== undefined]"),
    );
    expect(await textServed(path, [], ',source=data')).toBe(`${join(dir, 'data')},one,the data,true`);
  });

  it('can import from its folder and from node_modules above it', async () => {
    const path = moduleWith(
      `import { beside } from './beside.mjs';\nimport { above } from 'above';\n${oneFile('beside + above')}`,
    );
    writeFileSync(join(dir, 'tree', 'beside.mjs'), "export const beside = 'beside ';");
    const above = join(dir, 'node_modules', 'above');
    mkdirSync(above, { recursive: true });
    writeFileSync(
      join(above, 'package.json'),
      '{ "name": "above", "type": "module", "exports": "./index.js" }',
    );
    writeFileSync(join(above, 'index.js'), "export const above = 'above';");
    expect(await textServed(path)).toBe('beside above');
  });

  it('is served by another user, and in workers', async () => {
    chmodSync(dir, 0o755);
    const path = moduleWith(oneFile('process.getuid()'));
    expect(await textServed(path, ['--user', 'nobody'])).toBe('65534');
    expect(await textServed(path, ['--workers', '2'])).toBe('0');
  });

  it('is loaded by the worker of each guest, and tried at the start', async () => {
    chmodSync(dir, 0o755);
    const path = moduleWith(oneFile('process.pid'));
    const running = start(['serve', '--export', `${path},name=one`, '--isolation', 'guest', ...listen]);
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.walk(await client.attach('one', 0), 'file');
    await client.lopen(fid);
    expect(Number((await client.read(fid, 0, 1000)).toString())).not.toBe(running.child.pid);
    client.wire.socket.destroy();
    writeFileSync(path, "export default () => { throw new Error('no luck'); };");
    expect(refused('--export', path, '--isolation', 'guest')).toEqual([
      expect.stringContaining('its default export failed: no luck'),
    ]);
    mkdirSync(join(dir, 'files.mjs'));
    const other = start(['serve', '--export', './files.mjs/', '--isolation', 'guest', ...listen]);
    await canServe({ port: await other.port() }, join(dir, 'files.mjs'));
  });

  it('may read nothing else, write nothing and connect to nothing in the sandbox', async () => {
    writeFileSync(join(dir, 'secret'), 'secret');
    const server = createServer((_, response) => void response.end('connected')).listen(0, '127.0.0.1');
    await new Promise(resolve => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    const url = `http://127.0.0.1:${port}`;
    const attempt = (act: string) =>
      `await (async () => ${act})().catch(error => error.cause?.code ?? error.code)`;
    const acts = [
      `fs.readFileSync(${JSON.stringify(join(dir, 'secret'))})`,
      `fs.writeFileSync(${JSON.stringify(join(dir, 'tree', 'written'))}, '')`,
      `(await fetch('${url}')).text()`,
    ];
    const path = moduleWith(oneFile(`[${acts.map(attempt)}]`));
    expect(await textServed(path)).toMatch(/^(ENOENT|EACCES),(EROFS|EACCES),ENOSYS$/);
    expect(await textServed(path, ['--sandbox', 'off'])).toBe('secret,,connected');
    server.close();
  });

  it('has its warnings in the log, and keeps its guests', async () => {
    const path = moduleWith(
      oneFile("'' ").replace('bytes(file, offset) {', "bytes() { throw new Error('no bytes');"),
    );
    const running = start(['serve', '--export', `${path},name=one`, ...listen]);
    const client = await Client.connect({ port: await running.port() });
    const top = await client.attach('one', 0);
    const fid = await client.walk(top, 'file');
    await client.lopen(fid);
    for (let i = 0; i < 2; i++) await expect(client.read(fid, 0, 10)).rejects.toMatchObject({ name: 'EIO' });
    await client.getattr(top);
    client.wire.socket.destroy();
    await running.says(/WARN: one: the tree failed, and a client gets EIO: Error: no bytes/);
    expect(running.log.match(/no bytes/g)).toHaveLength(1);
  });

  it('leaves a directory of such a name to be served', async () => {
    mkdirSync(join(dir, 'files.mjs'));
    const running = start(['serve', '--export', './files.mjs/', ...listen]);
    await canServe({ port: await running.port() }, join(dir, 'files.mjs'));
    expect(refused('--export', './files.mjs')).toEqual([
      expect.stringContaining(
        "a path that ends in .mjs is a module's, and this is a directory: write ./files.mjs/",
      ),
    ]);
  });

  it('is refused with what to do', () => {
    const path = moduleWith(oneFile("''"));
    const problem = (text: string, settings = '', ...more: string[]) => {
      writeFileSync(path, text);
      const problems = refused('--export', `${path}${settings}`, ...more);
      expect(problems).toHaveLength(1);
      return problems[0];
    };
    const good = oneFile("''");
    expect(refused('--export', './absent.mjs')[0]).toContain('the module does not exist: correct the path');
    expect(problem(good, ',source=absent')).toContain('source=absent does not exist or cannot be read');
    expect(problem(good, ',source=')).toContain('source= is empty');
    expect(problem(good, ',security_model=none')).toContain('security_model is for directories');
    expect(problem(good, ',source=https://example.com/')).toMatch(
      /source=https:\/\/example.com\/ is on a network, and the sandbox lets no module connect to anything: start with --sandbox off/,
    );
    expect(refused('--export', '.,source=x')[0]).toContain(
      'source= is for a module that makes a tree, PATH.mjs',
    );
    expect(problem('export default 5')).toContain('its default export is no function that makes a tree');
    expect(problem('export const tree = 5')).toContain('its default export is no function that makes a tree');
    expect(problem('export default () => 5')).toContain('is no tree, since it lacks everything');
    expect(problem('export default () => ({ root: {}, walk() {} })')).toContain('lacks credentials, hold');
    expect(problem('export default () => { throw new TypeError("no luck") }')).toMatch(
      /its default export failed: no luck at makeTree|its default export failed: no luck at .*tree\.mjs:1/,
    );
    expect(problem('export default (')).toContain('it cannot be loaded: ');
    expect(problem("import 'absent-package'")).toContain(
      "it cannot be loaded: Cannot find package 'absent-package'",
    );
    expect(problem("import fs from 'node:fs'; export default () => fs.readFileSync('/root/x')")).toContain(
      'in the sandbox a module may read its folder, node_modules and source=, write nothing, and connect to nothing',
    );
    expect(problem("export default () => fetch('http://127.0.0.1:5641')")).toContain('connect to nothing');
  });

  it('is refused if it imports another copy of ninepd, or none', () => {
    const other = join(dir, 'other', 'node_modules', 'ninepd');
    mkdirSync(other, { recursive: true });
    cpSync(join(root, 'package.json'), join(other, 'package.json'));
    cpSync(join(root, 'dist'), join(other, 'dist'), { recursive: true });
    const path = join(dir, 'other', 'tree.mjs');
    writeFileSync(path, oneFile("''"));
    expect(refused('--export', path)[0]).toMatch(
      /it imports the ninepd of .*other\/node_modules\/ninepd, but that of .* runs, .*npx ninepd in its folder/,
    );
    const alone = join(dir, 'alone.mjs');
    writeFileSync(alone, readFileSync(path));
    expect(refused('--export', alone)[0]).toMatch(
      /Cannot find package 'ninepd'.*; install ninepd in its folder and start that: npm install ninepd/,
    );
  });
});
