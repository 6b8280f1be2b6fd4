import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'vitest';

/** A program of somebody who installed ninepd: mounts by the client, and prints what it found. */
const client = `
  import { Client, ENOENT } from 'ninepd/client';
  const client = await Client.connect({ host: '127.0.0.1', port: Number(process.argv[2]) });
  const root = await client.attach('', 0);
  const made = await client.walk(root);
  await client.lcreate(made, 'made', 2, 0o640);
  await client.writeAll(made, Buffer.from('written'));
  const found = await client.walk(root, 'found');
  await client.lopen(found);
  await client.setxattr(await client.walk(root, 'made'), 'user.note', Buffer.from('kept'));
  const missing = await client.walk(root, 'missing').catch(error => error === ENOENT);
  const directory = await client.walk(root);
  await client.lopen(directory);
  const names = (await client.readdir(directory)).map(({ name }) => name).sort();
  const { mode } = await client.getattr(made);
  console.log(JSON.stringify({
    read: (await client.readAll(found)).toString(), missing, names, mode: mode.toString(8),
    note: (await client.getxattr(made, 'user.note')).toString(),
  }));
  await client.close();
`;

export interface Installed {
  /** Where its node_modules is. */
  readonly installed: string;
  readonly program: string;
}

async function portOf(child: ChildProcess): Promise<string> {
  let log = '';
  for await (const text of child.stderr!) {
    log += text;
    const port = /^listening on tcp:\/\/127\.0\.0\.1:(\d+)$/m.exec(log)?.[1];
    if (port !== undefined) return port;
  }
  throw new Error(`ninepd does not listen:\n${log}`);
}

/** Serves a directory by the installed program, mounts it by the installed client, and checks both sides. */
export async function serveAndMount(
  { installed, program }: Installed,
  command: readonly string[],
  ...options: string[]
): Promise<void> {
  const [node, ...before] = command;
  const place = mkdtempSync(join(tmpdir(), 'ninepd-session-'));
  const served = join(place, 'served');
  mkdirSync(served);
  writeFileSync(join(served, 'found'), 'here');
  const script = join(installed, 'session.mjs');
  writeFileSync(script, client);
  const args = [...before, program, 'serve', served, '--listen', 'tcp://127.0.0.1:0', ...options];
  const child = spawn(node!, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: join(installed, 'bin') },
  });
  child.stderr!.setEncoding('utf8');
  await once(child, 'spawn');
  try {
    const { stdout } = await promisify(execFile)(node!, [...before, script, await portOf(child)], {
      env: {},
    });
    expect(JSON.parse(stdout)).toEqual({
      read: 'here',
      missing: true,
      names: ['.', '..', 'found', 'made'],
      mode: '100640',
      note: 'kept',
    });
    expect(readFileSync(join(served, 'made'), 'utf8')).toBe('written');
  } finally {
    child.kill('SIGTERM');
    const [status] = await once(child, 'exit');
    rmSync(place, { recursive: true });
    expect(status).toBe(0);
  }
}
