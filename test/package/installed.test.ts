import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installPackage } from '../../scripts/install-package.mjs';
import { type Installed, serveAndMount } from './session.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
let place: Installed;
const directories: string[] = [];

beforeAll(() => {
  place = installPackage();
});
afterAll(() => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

function freshDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ninepd-installed-'));
  directories.push(directory);
  return directory;
}

/** Runs a module as a file of the folder where ninepd is installed. */
function runModule(folder: string, text: string) {
  const path = join(folder, `module-${process.hrtime.bigint()}.mjs`);
  writeFileSync(path, text);
  const result = spawnSync(process.execPath, [path], { encoding: 'utf8', env: {} });
  rmSync(path);
  return result;
}

describe('where no compiler is, the installed program', () => {
  test('is a command', () => {
    const command = join(place.installed, 'node_modules/.bin/ninepd');
    const text = execFileSync(command, ['version'], {
      encoding: 'utf8',
      env: { PATH: join(place.installed, 'bin') },
    });
    expect(text).toMatch(/^ninepd \d+\.\d+\.\d+\n$/);
  });

  test('serves a directory, which its client mounts', async () => {
    await serveAndMount(place, [process.execPath]);
  });

  test('serves with workers', async () => {
    await serveAndMount(place, [process.execPath], '--workers', '2');
  });

  test('serves passthrough, with ninepd-groups beside it', async () => {
    await serveAndMount(place, [process.execPath], '--security-model', 'passthrough', '--insecure-loopback');
  });
});

describe('the installed library', () => {
  test('is imported by its name', () => {
    const { stdout, stderr } = runModule(
      place.installed,
      `import { Client, MemoryTree, Server } from 'ninepd';
       const server = await Server.open({ exports: [{ name: 'memory', tree: new MemoryTree({ bytesMax: 1 << 20 }) }] });
       const uri = await server.listen('tcp://127.0.0.1:0');
       const client = await Client.connect({ host: '127.0.0.1', port: Number(new URL(uri).port) });
       const root = await client.attach();
       await client.mkdir(root, 'made');
       console.log((await client.getattr(await client.walk(root, 'made'))).mode.toString(8));
       await client.close();
       await server.close();`,
    );
    expect(stderr).toBe('');
    expect(stdout).toBe('40755\n');
  });

  test('has a client, a tree in memory and a backend kit that load where the addon is missing; the rest says what is', () => {
    const folder = freshDirectory();
    cpSync(join(place.installed, 'node_modules'), join(folder, 'node_modules'), { recursive: true });
    rmSync(join(folder, 'node_modules/ninepd/native-shims'), { recursive: true });
    const ok = runModule(
      folder,
      `import { Client } from 'ninepd/client';
       import { MemoryTree } from 'ninepd/memory';
       import { ReadOnlyTree } from 'ninepd/backend';
       console.log(typeof Client, typeof MemoryTree, typeof ReadOnlyTree);`,
    );
    expect(ok.stderr).toBe('');
    expect(ok.stdout).toBe('function function function\n');
    const { stderr } = runModule(folder, "import 'ninepd';");
    const path = join(folder, 'node_modules/ninepd/native-shims/build/');
    expect(stderr).toMatch(
      new RegExp(`The native addon for \\w+-(glibc|musl) is missing: ${path}\\w+-\\w+/native-shims.node\\.`),
    );
  });

  test.each([
    ['node16', 'node16'],
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ])('has types for a program of module %s and moduleResolution %s', (module, moduleResolution) => {
    writeFileSync(
      join(place.installed, 'consumer.ts'),
      `import { type Errno, ENOENT, Client, MemoryTree, Server, type Tree } from 'ninepd';
       import { Client as OnlyClient, type Qid } from 'ninepd/client';
       import { MemoryTree as OnlyTree } from 'ninepd/memory';
       import { type Item, ReadOnlyTree } from 'ninepd/backend';
       class OneFile extends ReadOnlyTree<Item> {
         override list() { return [['file', { type: 'file' }]] as const; }
         override attributes() { return { size: 1 }; }
         override bytes() { return new Uint8Array(1); }
       }
       const tree: Tree = new OnlyTree({ bytesMax: 1 });
       const server: Server = await Server.open({ exports: [{ name: 'mine', tree }, { name: 'one', tree: new OneFile({ type: 'directory' }) }] });
       const uri: string = await server.listen('tcp://127.0.0.1:0');
       const client: Client = await OnlyClient.connect({ host: '127.0.0.1', port: 1 });
       const { qid }: { qid: Qid } = await client.mkdir(await client.attach(), 'made');
       const errno: Errno = ENOENT;
       // @ts-expect-error A port is a number.
       await Client.connect({ host: uri, port: qid });
       console.log(new MemoryTree({ bytesMax: 1 }), errno);
      `,
    );
    const config = {
      compilerOptions: {
        ...{ module, moduleResolution, target: 'es2022', lib: ['es2023'], strict: true, noEmit: true },
        ...{ typeRoots: [join(root, 'node_modules/@types')], types: ['node'] },
      },
      files: ['consumer.ts'],
    };
    writeFileSync(join(place.installed, 'tsconfig.json'), JSON.stringify(config));
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const { stdout, status } = spawnSync(process.execPath, [tsc, '-p', place.installed], {
      encoding: 'utf8',
    });
    expect(stdout).toBe('');
    expect(status).toBe(0);
  });
});
