import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { EEXIST } from '#base/errno.ts';
import { type AttrChange, Client } from '#client/client.ts';
import type { Qid } from '#protocol/kinds.ts';
import { Ninepd } from '../support/ninepd.ts';

// Two processes that serve one directory share only the kernel: workers of one server, or independent servers.

const [RDLCK, WRLCK, UNLCK] = [0, 1, 2];
const [GRANTED, BLOCKED] = [0, 1];
const BLOCK = 1;
const P9_RDWR = 2;
const EXCL = 0o200;
/** Guests often have equal client_ids and proc_ids. */
const whole = { flags: 0, start: 0, length: 0, proc_id: 1, client_id: 'vm' };

let top: string;
let files: string;
const running: Ninepd[] = [];
let tests = 0;

async function started(...args: string[]): Promise<Ninepd> {
  const exports = [{ path: files, name: 'files', securityModel: 'mapped' } as const];
  // Log level that names each connection, however many.
  const server = await Ninepd.start({ exports, args: ['--log-level', 'debug', ...args] });
  running.push(server);
  return server;
}

const twoServers = () => Promise.all([started(), started()]);

async function twoWorkers(): Promise<[Ninepd, Ninepd]> {
  const server = await started('--workers', '2');
  return [server, server];
}

/** The workers of the last two connections. */
function lastTwo(log: string): number[] {
  const all = [...log.matchAll(/worker (\d): .*: connected/g)].map(match => Number(match[1]));
  return all.slice(2 * tests - 2).sort();
}

/** A program of this machine that answers each line with a line. */
class HostProgram {
  readonly #child;
  readonly #lines;

  constructor(code: string, ...args: string[]) {
    this.#child = spawn('python3', ['-c', code, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface(this.#child.stdout)[Symbol.asyncIterator]();
  }

  async says(told?: string): Promise<string> {
    if (told !== undefined) this.#child.stdin.write(`${told}\n`);
    return (await this.#lines.next()).value;
  }

  end(): void {
    this.#child.kill();
  }
}

const qidPath = ({ pathLow, pathHigh }: Qid) => ({ pathLow, pathHigh });

async function opened(client: Client, from: number, path = ''): Promise<number> {
  const fid = await client.walk(from, path);
  await client.lopen(fid);
  return fid;
}

describe.each([
  ['two workers of one server', twoWorkers],
  ['two servers of one directory', twoServers],
])('%s', (_, serve) => {
  let servers: [Ninepd, Ninepd];
  let a: Client;
  let b: Client;
  let rootOfA: number;
  let rootOfB: number;
  let path: string;

  beforeAll(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-two-'));
    files = join(top, 'files');
    mkdirSync(files);
    servers = await serve();
    tests = 0;
  });
  afterAll(async () => {
    for (const server of running.splice(0)) expect(await server.stop()).toBe(0);
    rmSync(top, { recursive: true });
  });

  beforeEach(async () => {
    tests++;
    [a, b] = [
      await Client.connect({ port: servers[0].port }),
      await Client.connect({ port: servers[1].port }),
    ];
    [rootOfA, rootOfB] = [await a.attach('', 0), await b.attach('', 0)];
    if (servers[0] === servers[1]) await vi.waitFor(() => expect(lastTwo(servers[0].log())).toEqual([1, 2]));
    // Each test in a directory of its own.
    const name = `test${tests}`;
    path = join(files, name);
    await a.mkdir(rootOfA, name);
    await a.walk(rootOfA, name, rootOfA);
    await b.walk(rootOfB, name, rootOfB);
    return () => {
      for (const one of [a, b]) one.wire.socket.destroy();
    };
  });

  /** A new file, open through both. */
  async function openFile(): Promise<[number, number]> {
    const ofA = await a.walk(rootOfA);
    await a.lcreate(ofA, 'f', P9_RDWR, 0o644);
    const ofB = await b.walk(rootOfB, 'f');
    await b.lopen(ofB, P9_RDWR);
    return [ofA, ofB];
  }

  it('keep each other from locks, by range and kind, and say who is in the way', async () => {
    const [ofA, ofB] = await openFile();
    const range = { ...whole, start: 100, length: 50 };
    expect(await a.lock(ofA, { ...range, type: WRLCK })).toBe(GRANTED);
    expect(await b.lock(ofB, { ...range, type: RDLCK })).toBe(BLOCKED);
    expect(await b.lock(ofB, { ...whole, type: WRLCK, length: 100 })).toBe(GRANTED);
    expect(await b.lock(ofB, { ...whole, type: WRLCK, start: 150 })).toBe(GRANTED);
    expect(await b.lock(ofB, { ...whole, type: UNLCK })).toBe(GRANTED);
    const asked = { type: WRLCK, start: 0, length: 0, proc_id: 1, client_id: 'vm' };
    expect(await b.getlock(ofB, asked)).toMatchObject({ type: WRLCK, start: 100, length: 50 });
    expect(await a.lock(ofA, { ...range, type: RDLCK })).toBe(GRANTED);
    expect(await b.lock(ofB, { ...whole, type: RDLCK })).toBe(GRANTED);
    expect(await b.lock(ofB, { ...whole, type: WRLCK })).toBe(BLOCKED);
    expect(await a.lock(ofA, { ...whole, type: UNLCK })).toBe(GRANTED);
    expect(await b.lock(ofB, { ...whole, type: WRLCK })).toBe(GRANTED);
    expect(await a.getlock(ofA, asked)).toMatchObject({ type: WRLCK, start: 0, length: 0 });
  });

  it('grant a lock that waits when the other unlocks, closes, or loses its guest; a flush ends the wait', async () => {
    const [ofA, ofB] = await openFile();
    const lockFields = { ...whole, fid: ofB, type: WRLCK, flags: BLOCK } as const;
    const other = await a.walk(rootOfA, 'f');
    await a.lopen(other, P9_RDWR);
    for (const [fid, letGo] of [
      [ofA, () => a.lock(ofA, { ...whole, type: UNLCK })],
      [ofA, () => a.clunk(ofA)],
      [other, () => a.wire.socket.destroy()],
    ] as const) {
      expect(await a.lock(fid, { ...whole, type: WRLCK })).toBe(GRANTED);
      const tag = b.wire.freeTag();
      const flushed = b.wire.request('lock', lockFields, tag);
      await b.wire.flush(tag);
      await expect(flushed).rejects.toMatchObject({ name: 'EINTR' });
      const granted = b.wire.request('lock', lockFields);
      await b.getattr(ofB);
      await letGo();
      expect((await granted).status).toBe(GRANTED);
      expect(await b.lock(ofB, { ...whole, type: UNLCK })).toBe(GRANTED);
    }
  });

  it('respect the locks of a program of this machine, which respects theirs', async () => {
    const [ofA, ofB] = await openFile();
    const program = `
import fcntl, sys
with open(sys.argv[1], 'r+') as f:
    fcntl.lockf(f, fcntl.LOCK_EX); print('locked', flush=True)
    sys.stdin.readline()
    fcntl.lockf(f, fcntl.LOCK_UN)
    while True:
        try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(f, fcntl.LOCK_UN); print('free', flush=True)
        except BlockingIOError: print('busy', flush=True)
        sys.stdin.readline()`;
    const host = new HostProgram(program, join(path, 'f'));
    expect(await host.says()).toBe('locked');
    expect(await a.lock(ofA, { ...whole, type: RDLCK })).toBe(BLOCKED);
    const granted = b.lock(ofB, { ...whole, type: WRLCK, flags: BLOCK });
    await b.getattr(ofB);
    expect(await host.says('go on')).toMatch(/free|busy/);
    expect(await granted).toBe(GRANTED);
    expect(await host.says('and now')).toBe('busy');
    expect(await b.lock(ofB, { ...whole, type: UNLCK })).toBe(GRANTED);
    expect(await host.says('and now')).toBe('free');
    host.end();
  });

  it("see each other's owners and modes at once, and those of a program that writes the records", async () => {
    const [ofA, ofB] = await openFile();
    const both = [
      [a, ofA],
      [b, ofB],
    ] as const;
    const kept = { uid: 0, gid: 0, mode: 0o100644 };
    for (let i = 0; i < 300; i++) {
      const [client, fid] = both[i & 1]!;
      const change = [{ uid: i }, { gid: 1000 + i }, { mode: i & 0o777 }][i % 3] as AttrChange;
      await client.setattr(fid, change);
      Object.assign(kept, change.mode === undefined ? change : { mode: 0o100000 | change.mode });
      for (const [reader, its] of both) expect(await reader.getattr(its)).toMatchObject(kept);
    }
    const program = `
import os, struct, sys
for i in range(100):
    os.setxattr(sys.argv[1], 'user.virtfs.uid', struct.pack('<I', 5000 + i)); print(5000 + i, flush=True)
    sys.stdin.readline()`;
    const host = new HostProgram(program, join(path, 'f'));
    for (let i = 0; i < 100; i++) {
      expect(await host.says(i > 0 ? 'next' : undefined)).toBe(`${5000 + i}`);
      for (const [reader, its] of both) expect(await reader.getattr(its)).toMatchObject({ uid: 5000 + i });
    }
    host.end();
    // Only the servers own the file on this machine.
    expect(statSync(join(path, 'f'))).toMatchObject({ uid: process.getuid!(), mode: 0o100600 });
  });

  it("see each other's data, sizes and names at once", async () => {
    const [ofA, ofB] = await openFile();
    for (let i = 0; i < 200; i++) {
      const text = `written ${i}`;
      await (i & 1 ? a : b).write(i & 1 ? ofA : ofB, i * 16, Buffer.from(text));
      const seen = i & 1 ? await b.read(ofB, i * 16, 100) : await a.read(ofA, i * 16, 100);
      expect(seen.toString()).toBe(text);
    }
    await a.setattr(ofA, { size: 5 });
    expect((await b.readAll(ofB)).length).toBe(5);
    await a.mkdir(rootOfA, 'd');
    await b.renameat(rootOfB, 'f', await b.walk(rootOfB, 'd'), 'g');
    const names = (await a.readdir(await opened(a, rootOfA, 'd'))).map(({ name }) => name);
    expect(names.sort()).toEqual(['.', '..', 'g']);
    await expect(a.walk(rootOfA, 'f')).rejects.toMatchObject({ name: 'ENOENT' });
    expect((await a.getattr(ofA)).qid).toMatchObject(qidPath((await b.getattr(ofB)).qid));
  });

  it('keep a file that is open while the other takes its last name', async () => {
    const [ofA, ofB] = await openFile();
    await a.write(ofA, 0, Buffer.from('still here'));
    await b.clunk(ofB);
    await b.unlinkat(rootOfB, 'f');
    expect((await a.read(ofA, 0, 100)).toString()).toBe('still here');
    await a.write(ofA, 6, Buffer.from('th'));
    await a.setattr(ofA, { mode: 0o600, size: 8 });
    expect(await a.getattr(ofA)).toMatchObject({ nlink: 0, mode: 0o100600, size: 8 });
    const again = await a.walk(ofA);
    await a.lopen(again);
    expect((await a.readAll(again)).toString()).toBe('still th');
  });

  it("give an object one qid.path, and a version that moves when the other changes it and not by one's own doing", async () => {
    const [ofA, ofB] = await openFile();
    const before = (await a.getattr(ofA)).qid;
    expect((await b.getattr(ofB)).qid).toMatchObject(qidPath(before));
    await a.write(ofA, 0, Buffer.from('mine'));
    expect((await a.getattr(ofA)).qid.version).toBe(before.version);
    await b.write(ofB, 0, Buffer.from('theirs'));
    const after = (await a.getattr(ofA)).qid;
    expect(after).toMatchObject(qidPath(before));
    expect(after.version).not.toBe(before.version);
  });

  it('let one of them alone make a name', async () => {
    for (let i = 0; i < 100; i++) {
      const attempts = await Promise.allSettled([a, b].map((client, of) => made(client, of, `n${i}`)));
      const failed = attempts.flatMap(one => (one.status === 'rejected' ? [one.reason] : []));
      expect(failed).toEqual([EEXIST]);
    }
    expect(await a.readdir(await opened(a, rootOfA))).toHaveLength(102);
  });

  async function made(client: Client, of: number, name: string): Promise<void> {
    const fid = await client.walk(of === 0 ? rootOfA : rootOfB);
    await client.lcreate(fid, name, P9_RDWR | EXCL, 0o600);
    await client.clunk(fid);
  }
});
