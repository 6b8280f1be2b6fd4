import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inline } from '#host/linux.ts';
import { serverCreds } from '#host/syscalls.ts';
import { Client, ConfigError, type ExportOptions, Server } from '#index.ts';

const [read, write, unlock] = [0, 1, 2];
const [granted, blocked] = [0, 1];

describe('a lock of a guest that may only read', () => {
  let dir: string;
  let server: Server | undefined;
  let host: number;
  const clients: Client[] = [];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-locks-'));
    writeFileSync(join(dir, 'f'), 'content');
    host = openSync(join(dir, 'f'), 'r+');
  });
  afterEach(async () => {
    for (const { wire } of clients.splice(0)) wire.socket.destroy();
    await server?.close();
    closeSync(host);
    rmSync(dir, { recursive: true });
  });

  async function serve(options: Partial<ExportOptions>): Promise<string> {
    server = await Server.open({ exports: [{ path: dir, readonly: true, ...options }] });
    return server.listen('tcp://127.0.0.1:0');
  }

  /** A guest with the file open: asks for a lock, and has its status. */
  async function guest(uri: string): Promise<(type: number) => Promise<number>> {
    const client = await Client.connect({ port: Number(new URL(uri).port) });
    clients.push(client);
    const fid = await client.walk(await client.attach('', 0), ['f']);
    await client.lopen(fid, 0);
    const whole = { start: 0, length: 0, proc_id: 1, client_id: `${clients.length}` };
    return async type => (await client.wire.request('lock', { fid, type, flags: 0, ...whole })).status;
  }

  /** As a program of the host: whether its lock is granted. */
  const onHost = (type: number) => inline.lock(serverCreds, host, type, 0, 0);

  it('keeps writers of the host out by default', async () => {
    const ask = await guest(await serve({}));
    expect(await ask(read)).toBe(granted);
    expect(await onHost(write)).toBe(false);
    expect(await ask(unlock)).toBe(granted);
    expect(await onHost(write)).toBe(true);
  });

  it('keeps none out with hostlocks=off, and still waits for theirs and for other guests', async () => {
    const uri = await serve({ hostLocks: false });
    const [one, two] = [await guest(uri), await guest(uri)];
    expect([await one(read), await two(read), await two(write)]).toEqual([granted, granted, blocked]);
    expect(await onHost(write)).toBe(true);
    expect(await one(unlock)).toBe(granted);
    expect(await one(read)).toBe(blocked);
    expect(await onHost(unlock)).toBe(true);
    expect(await one(read)).toBe(granted);
  });

  it('must hold on the host where guests write', async () => {
    await expect(serve({ readonly: false, hostLocks: false })).rejects.toThrow(ConfigError);
  });
});
