import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { AwsClient } from 'aws4fetch';
import { describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { dir, files, Running, refused, root, start } from './cli-program.ts';

const example = (name: string) => join(root, 'examples', name);
const modified = new Date('2020-02-03T04:05:06Z');
const big = Buffer.alloc(3_000_000, 'a line of some length\n');

/** The files that each example serves. */
function makeFiles(): void {
  mkdirSync(join(files, 'sub', 'größe & so'), { recursive: true });
  for (const [name, content] of Object.entries({
    'hello.txt': 'hello\n',
    'a b#c?d%e.txt': 'strange',
    'sub/big': big,
    'sub/größe & so/leaf': 'leaf',
    empty: '',
  })) {
    writeFileSync(join(files, name), content);
    utimesSync(join(files, name), modified, modified);
  }
}

async function connected(running: Running): Promise<{ client: Client; top: number }> {
  const client = await Client.connect({ port: await running.port() });
  return { client, top: await client.attach('example', 0) };
}

const bytesOf = (text: string) => Buffer.from(text).toString('latin1');

async function contentOf({ client, top }: { client: Client; top: number }, path: string): Promise<Buffer> {
  const fid = await client.walk(top, path.split('/').map(bytesOf));
  await client.lopen(fid);
  return client.readAll(fid);
}

async function namesIn({ client, top }: { client: Client; top: number }, path: string): Promise<string[]> {
  const fid = await client.walk(top, path.split('/').filter(Boolean).map(bytesOf));
  await client.lopen(fid);
  const names = (await client.readdir(fid)).map(({ name }) => Buffer.from(name, 'latin1').toString());
  return names.filter(name => name !== '.' && name !== '..').sort();
}

/** Checks all that `makeFiles` has made. */
async function servesTheFiles(running: Running): Promise<void> {
  const served = await connected(running);
  const { client, top } = served;
  expect(await namesIn(served, '')).toEqual(['a b#c?d%e.txt', 'empty', 'hello.txt', 'sub']);
  expect(await namesIn(served, 'sub')).toEqual(['big', 'größe & so']);
  expect((await contentOf(served, 'hello.txt')).toString()).toBe('hello\n');
  expect((await contentOf(served, 'a b#c?d%e.txt')).toString()).toBe('strange');
  expect((await contentOf(served, 'sub/größe & so/leaf')).toString()).toBe('leaf');
  expect((await contentOf(served, 'empty')).length).toBe(0);
  expect((await contentOf(served, 'sub/big')).equals(big)).toBe(true);
  const fid = await client.walk(top, ['sub', 'big']);
  expect((await client.getattr(fid)).size).toBe(big.length);
  await client.lopen(fid);
  expect(await client.read(fid, 1_234_567, 1000)).toEqual(big.subarray(1_234_567, 1_235_567));
  await expect(client.walk(top, 'absent')).rejects.toMatchObject({ name: 'ENOENT' });
  await expect(client.mkdir(top, 'd')).rejects.toMatchObject({ name: 'EROFS' });
  client.wire.socket.destroy();
  expect(running.log).not.toMatch(/WARN: example|ERROR/);
}

function serve(module: string, source: string, ...more: string[]): Running {
  const port = ['--listen', 'tcp://127.0.0.1:0'];
  return start(
    ['serve', '--export', `${module},name=example,source=${source.replaceAll(',', ',,')}`, ...port, ...more],
    {
      env: { AWS_ACCESS_KEY_ID: 'testing', AWS_SECRET_ACCESS_KEY: 'testing' },
    },
  );
}

describe('the example of a zip archive', () => {
  /** Python's zipfile is another implementation of the format than yauzl. */
  function makeArchive(): string {
    const archive = join(dir, 'files.zip');
    execFileSync(
      'python3',
      ['-m', 'zipfile', '-c', archive, ...['hello.txt', 'a b#c?d%e.txt', 'sub', 'empty']],
      {
        cwd: files,
      },
    );
    return archive;
  }

  it('serves the archive from the sandbox', async () => {
    makeFiles();
    const running = serve(example('zip.mjs'), makeArchive());
    await servesTheFiles(running);
    expect(running.log).toMatch(/sandbox: .*filtered system calls/);
  });

  it('serves it to the guests of several workers', async () => {
    makeFiles();
    await servesTheFiles(serve(example('zip.mjs'), makeArchive(), '--workers', '2'));
  });

  it('gives modes, times and symlinks', async () => {
    const archive = join(dir, 'modes.zip');
    const script = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, mode, text in (('run', 0o100750, '#!/bin/sh'), ('link', 0o120777, 'run')):
        entry = zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6))
        entry.create_system = 3
        entry.external_attr = mode << 16
        archive.writestr(entry, text)
`;
    execFileSync('python3', ['-c', script, archive]);
    const { client, top } = await connected(serve(example('zip.mjs'), archive));
    const found = await client.getattr(await client.walk(top, 'run'));
    expect(found.mode.toString(8)).toBe('100750');
    expect(found.mtime_sec).toBe(new Date(2020, 1, 3, 4, 5, 6).getTime() / 1000);
    expect(await client.readlink(await client.walk(top, 'link'))).toBe('run');
    client.wire.socket.destroy();
  });

  it('refuses what is no archive at the start', () => {
    writeFileSync(join(dir, 'no.zip'), 'no archive');
    expect(refused('--export', `${example('zip.mjs')},source=no.zip`)).toEqual([
      expect.stringMatching(/export .*zip\.mjs: its default export failed: .*central directory/i),
    ]);
  });
});

describe('the example of an HTTP server', () => {
  it('serves the listings of Python, which knows no ranges', async () => {
    makeFiles();
    const python = spawn('python3', ['-u', '-m', 'http.server', '0', '--bind', '127.0.0.1'], {
      cwd: files,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [line] = await once(python.stdout, 'data');
    const port = /port (\d+)/.exec(String(line))![1];
    try {
      const running = serve(example('http-index.mjs'), `http://127.0.0.1:${port}/`, '--sandbox', 'off');
      await servesTheFiles(running);
      const { client, top } = await connected(running);
      const { mtime_sec } = await client.getattr(await client.walk(top, 'hello.txt'));
      expect(mtime_sec).toBe(modified.getTime() / 1000);
      client.wire.socket.destroy();
    } finally {
      python.kill();
    }
  });

  it('asks for ranges, and survives a server that fails', async () => {
    const ranges: string[] = [];
    const server = createServer(({ url, method, headers }, response) => {
      if (url === '/')
        response.setHeader('content-type', 'text/html').end('<a href="../">up</a> <a href="file">file</a>');
      else if (url !== '/file') response.writeHead(url === '/secret' ? 403 : 500).end();
      else if (method === 'HEAD') response.setHeader('content-length', big.length).end();
      else {
        const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '')!;
        ranges.push(headers.range!);
        if (Number(from) >= big.length) response.writeHead(416).end();
        else response.writeHead(206).end(big.subarray(Number(from), Number(to) + 1));
      }
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      const served = await connected(
        serve(example('http-index.mjs'), `http://127.0.0.1:${port}`, '--sandbox', 'off'),
      );
      const { client, top } = served;
      expect(await namesIn(served, '')).toEqual(['file']);
      expect((await contentOf(served, 'file')).equals(big)).toBe(true);
      expect(ranges.length).toBeGreaterThan(1);
      await expect(client.walk(top, 'secret')).rejects.toMatchObject({ name: 'EACCES' });
      await expect(client.walk(top, 'broken')).rejects.toMatchObject({ name: 'EIO' });
      expect(await namesIn(served, '')).toEqual(['file']);
      client.wire.socket.destroy();
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('the example of a bucket', () => {
  const motoServer = '/usr/bin/moto_server';
  type Put = (key: string, body?: Buffer) => Promise<void>;

  /** moto is a server of S3 for tests; it is packaged by Debian. */
  async function withBucket(act: (url: string, put: Put) => Promise<void>): Promise<void> {
    if (!existsSync(motoServer))
      throw new Error(
        `${motoServer} is not there: apt-get install --no-install-recommends python3-moto python3-flask python3-flask-cors`,
      );
    const moto = new Running(
      spawn('/usr/bin/python3', ['-u', motoServer, '-p', '0'], { stdio: ['ignore', 'ignore', 'pipe'] }),
    );
    // It loads for seconds, on a busy machine for half a minute.
    let port: string | undefined;
    while (port === undefined) {
      if (moto.child.exitCode !== null) throw new Error(moto.log);
      await new Promise(resolve => setTimeout(resolve, 50));
      port = /Running on http:\/\/127\.0\.0\.1:(\d+)/.exec(moto.log)?.[1];
    }
    const url = `http://127.0.0.1:${port}/bucket`;
    const aws = new AwsClient({
      accessKeyId: 'testing',
      secretAccessKey: 'testing',
      service: 's3',
      region: 'us-east-1',
    });
    const put: Put = async (key, body) => {
      const path = key.split('/').map(encodeURIComponent).join('/');
      expect((await aws.fetch(`${url}${path}`, { method: 'PUT', ...(body ? { body } : {}) })).status).toBe(
        200,
      );
    };
    await put('');
    for (const name of ['hello.txt', 'a b#c?d%e.txt', 'sub/big', 'sub/größe & so/leaf', 'empty'])
      await put(`/${name}`, readFileSync(join(files, name)));
    // As some programs mark a directory.
    await put('/sub/', Buffer.alloc(0));
    await act(url, put);
  }

  it('serves its objects', async () => {
    makeFiles();
    await withBucket(async url => {
      await servesTheFiles(serve(example('s3.mjs'), url, '--sandbox', 'off'));
    });
  });

  it('lists more objects than one reply has', async () => {
    makeFiles();
    await withBucket(async (url, put) => {
      const names = Array.from({ length: 1100 }, (_, i) => `object-${String(i).padStart(4, '0')}`);
      for (let at = 0; at < names.length; at += 20)
        await Promise.all(names.slice(at, at + 20).map(name => put(`/many/${name}`, Buffer.from(name))));
      const served = await connected(serve(example('s3.mjs'), url, '--sandbox', 'off'));
      expect(await namesIn(served, 'many')).toEqual(names);
      served.client.wire.socket.destroy();
    });
  });
});

describe('the tree of the guide', () => {
  const guide = readFileSync(join(root, 'docs', 'backends.md'), 'utf8');
  const code = /```js\n(import[\s\S]*?)```/.exec(guide)![1]!;

  it('is as in docs/backends.md, in 40 lines', async () => {
    mkdirSync(join(dir, 'node_modules'));
    symlinkSync(root, join(dir, 'node_modules', 'ninepd'));
    writeFileSync(join(dir, 'countries.mjs'), code);
    writeFileSync(
      join(dir, 'countries.csv'),
      'Europe,France,Paris\nEurope,Malta,Valletta\nAfrica,Mali,Bamako\n',
    );
    const served = await connected(serve('./countries.mjs', 'countries.csv'));
    expect(await namesIn(served, '')).toEqual(['Africa', 'Europe']);
    expect(await namesIn(served, 'Europe')).toEqual(['France.txt', 'Malta.txt']);
    expect((await contentOf(served, 'Europe/Malta.txt')).toString()).toBe('Valletta\n');
    served.client.wire.socket.destroy();
    const lines = code.split('\n').filter(line => line.trim() !== '' && !line.trim().startsWith('//'));
    expect(lines.length).toBeLessThanOrEqual(40);
  });
});
