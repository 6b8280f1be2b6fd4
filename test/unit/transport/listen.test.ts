import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ListenError, type Listener, listen } from '#transport/listen.ts';

describe('a Unix socket', () => {
  let dir: string;
  const none = () => undefined;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-listen-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  function listenOn(path: string): Promise<Listener> {
    return listen({ kind: 'unix', path }, none, none);
  }

  it('has mode 0600, and its file is removed on close', async () => {
    const path = join(dir, 's');
    const listener = await listenOn(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir)).toEqual(['s']);
    listener.close();
    expect(readdirSync(dir)).toEqual([]);
  });

  it('replaces the socket file of a server that has ended', async () => {
    const path = join(dir, 's');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(existsSync(path)).toBe(true);
    (await listenOn(path)).close();
  });

  it('is refused where a server listens, and where another kind of file exists', async () => {
    const path = join(dir, 's');
    const first = await listenOn(path);
    await expect(listenOn(path)).rejects.toThrow(/another server listens there/);
    expect(existsSync(path)).toBe(true);
    first.close();
    writeFileSync(path, 'precious');
    await expect(listenOn(path)).rejects.toThrow(/no socket/);
    expect(statSync(path).size).toBe(8);
    await expect(listenOn(join(dir, 'none', 's'))).rejects.toThrow(/does not exist/);
    expect(readdirSync(dir)).toEqual(['s']);
  });

  it('keeps the file that another server has put at its path', async () => {
    const path = join(dir, 's');
    const first = await listenOn(path);
    rmSync(path);
    const second = await listenOn(path);
    first.close();
    expect(existsSync(path)).toBe(true);
    second.close();
  });
});

describe('a TCP listener', () => {
  const none = () => undefined;

  it('reports the port that the kernel chose, and what to do when one is in use', async () => {
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, none, none);
    const port = Number(/^tcp:\/\/127\.0\.0\.1:(\d+)$/.exec(listener.uri)?.[1]);
    expect(port).toBeGreaterThan(0);
    const again = listen({ kind: 'tcp', host: '127.0.0.1', port }, none, none);
    await expect(again).rejects.toThrow(ListenError);
    await expect(again).rejects.toThrow(/in use/);
    listener.close();
  });

  it('reports an address that the machine does not have', async () => {
    const listening = listen({ kind: 'tcp', host: '192.0.2.1', port: 0 }, none, none);
    await expect(listening).rejects.toThrow(/no address 192\.0\.2\.1/);
  });
});

describe('an inherited descriptor', () => {
  it('is refused when it is no stream socket', async () => {
    const listening = listen(
      { kind: 'fd', fd: 900 },
      () => undefined,
      () => undefined,
    );
    await expect(listening).rejects.toThrow(/descriptor 900 is no stream socket/);
  });

  it('is refused when the service manager passed no such name', async () => {
    const listening = listen(
      { kind: 'named-fd', name: 'guests' },
      () => undefined,
      () => undefined,
    );
    await expect(listening).rejects.toThrow(/no socket named "guests"/);
  });
});
