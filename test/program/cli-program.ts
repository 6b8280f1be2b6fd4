import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect } from 'vitest';
import { Client } from '#client/client.ts';
import { workersOf } from '../support/processes.ts';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const program = join(root, 'dist/cli/main.js');
export const P9_RDWR = 2;

/** A directory for one test, and the exported one in it. */
export let dir: string;
export let files: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  if (!existsSync(program)) throw new Error(`${program} is not there: npm run build`);
  dir = mkdtempSync(join(tmpdir(), 'ninepd-cli-'));
  files = join(dir, 'files');
  mkdirSync(files);
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  rmSync(dir, { recursive: true, force: true });
});

/** The program as a process, killed at the end of its test. */
export class Running {
  readonly child: ChildProcess;
  log = '';
  constructor(child: ChildProcess) {
    this.child = child;
    children.push(child);
    child.stderr!.setEncoding('utf8').on('data', text => {
      this.log += text;
    });
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    for (let i = 0; i < 1000; i++) {
      const found = pattern.exec(this.log);
      if (found) return found;
      if (this.child.exitCode !== null) break;
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    throw new Error(`${pattern} does not come:\n${this.log}`);
  }

  async port(): Promise<number> {
    return Number((await this.says(/^listening on tcp:\/\/127\.0\.0\.1:(\d+)$/m))[1]);
  }

  async ended(): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit');
    return this.child.exitCode;
  }
}

export function start(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; stdio?: (net.Socket | 'pipe' | 'ignore')[] } = {},
): Running {
  const { env = {}, stdio = ['ignore', 'ignore', 'pipe'] } = options;
  return new Running(
    spawn(process.execPath, [program, ...args], { cwd: dir, env: { ...process.env, ...env }, stdio }),
  );
}

/** The process that serves: the worker of a connection that this makes, or the program itself with `--isolation none`. */
export async function serverOf(running: Running): Promise<number> {
  const client = await Client.connect({ port: await running.port() });
  await client.attach('', 0);
  return workersOf(running.child.pid!)[0] ?? running.child.pid!;
}

/** Runs the program, which must not start; returns the listed problems. */
export function refused(...args: string[]): string[] {
  const { status, stderr } = spawnSync(process.execPath, [program, ...args], {
    cwd: dir,
    encoding: 'utf8',
    timeout: 20_000,
  });
  expect(status, stderr).toBe(2);
  expect(stderr).not.toContain('listening on');
  return stderr.split('\n').filter(line => line.startsWith('  - '));
}

/** Writes a file through the server and reads it on the host. */
export async function canServe(address: { port: number } | { path: string }, where = files): Promise<void> {
  const client = await Client.connect(address);
  const fid = await client.attach('', 0);
  await client.lcreate(fid, 'made', P9_RDWR);
  await client.writeAll(fid, Buffer.from('through the server'));
  client.wire.socket.destroy();
  expect(readFileSync(join(where, 'made'), 'utf8')).toBe('through the server');
}

/** Sends SIGTERM twice; the server waits in between for `client` to read 40 MB of replies, which it does not. */
export async function stopTwiceWithUnreadReplies(running: Running, client: Client): Promise<void> {
  const fid = await client.attach('', 0);
  await client.lcreate(fid, 'f', P9_RDWR);
  await client.writeAll(fid, Buffer.alloc(4_000_000));
  client.wire.socket.pause();
  for (let i = 0; i < 40; i++) client.read(fid, 0, 1_000_000).catch(() => undefined);
  await new Promise(resolve => setTimeout(resolve, 300));
  running.child.kill('SIGTERM');
  await running.says(/stopping: SIGTERM/);
  await new Promise(resolve => setTimeout(resolve, 700));
  running.child.kill('SIGTERM');
}
