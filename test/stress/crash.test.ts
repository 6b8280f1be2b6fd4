import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  utimesSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { Client } from '#client/client.ts';
import { Disconnected } from '#client/wire.ts';
import { Ninepd } from '../support/ninepd.ts';
import { guestXattr, type Model, readFromHost, type Seen, same } from './host-reader.ts';
import { progress, seed, stress } from './options.ts';
import { Random } from './random.ts';
import { type World, Writer } from './writer.ts';

const rounds = stress.rounds ?? 3;
const models: readonly Model[] = ['mapped', 'passthrough'];
/** Root and another user, on two connections each. */
const users = [0, 1000, 0, 1000];
/** The server is killed a moment after this number of requests. */
const killAfterMax = 600;
const killAfterMsMax = 5;
const unfinished = /^\.ninepd-new-[0-9a-f]{24}$/;

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

let top: string;
let server: Ninepd | undefined;
const random = new Random(seed);
const address = () => ({ path: join(top, 'socket') });
const told = { answered: 0, objects: 0, inDoubt: 0, unfinished: 0 };

async function start(): Promise<Ninepd> {
  // Orphans of the killed server.
  rmSync(address().path, { force: true });
  return Ninepd.start({
    exports: models.map(model => ({ path: join(top, model), name: model, securityModel: model })),
    listen: [`unix://${address().path}`],
    args: ['--log-level', 'warn'],
  });
}

beforeAll(async () => {
  top = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-crash-')));
  for (const model of models) {
    mkdirSync(join(top, model));
    chmodSync(join(top, model), 0o755);
  }
  server = await start();
});

afterAll(async () => {
  await server?.stop();
  rmSync(top, { recursive: true, force: true });
});

interface Running {
  readonly model: Model;
  readonly writer: Writer;
  readonly client: Client;
  readonly ended: Promise<unknown>;
}

async function write(round: number): Promise<Running[]> {
  const running: Running[] = [];
  for (const model of models) {
    for (const [i, uid] of users.entries()) {
      const client = await Client.connect(address());
      const writer = new Writer(client, model, `r${round}-${i}`, uid, new Random(random.below(2 ** 31)));
      await writer.start();
      running.push({ model, writer, client, ended: Promise.resolve() });
    }
  }
  return running.map(one => ({ ...one, ended: one.writer.run().catch(error => error) }));
}

/** The host must have what was answered; an unanswered request has its whole effect or none. */
function checkHost({ model, writer }: Running): World {
  const directory = join(top, model, writer.directory);
  const there = new Map<string, Seen>();
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (unfinished.test(name)) checkUnfinished(path);
    else there.set(name, readFromHost(model, path));
  }
  const doubtful = writer.worlds[0] ?? new Map();
  for (const [name, seen] of writer.entries) {
    if (!doubtful.has(name)) expectSame(`${model} ${writer.directory}/${name}`, there.get(name), seen);
  }
  const stranger = [...there.keys()].find(name => !writer.entries.has(name) && !doubtful.has(name));
  expect(stranger, `${model} ${writer.directory}`).toBeUndefined();
  if (doubtful.size > 0) {
    told.inDoubt++;
    const fits = writer.worlds.some(world => [...world].every(([name, seen]) => same(there.get(name), seen)));
    const is = [...doubtful.keys()].map(name => [name, show(there.get(name))]);
    const wanted = writer.worlds.map(world => [...world].map(([name, seen]) => [name, show(seen)]));
    if (!fits) throw new Error(`${model}: ${JSON.stringify(is)} is none of ${JSON.stringify(wanted)}`);
  }
  told.objects += there.size;
  return there;
}

/** An orphan is empty, and accessible only to the server. */
function checkUnfinished(path: string): void {
  const { mode, uid } = lstatSync(path);
  expect([mode & 0o7777, uid, readdirSync(path)]).toEqual([0o700, process.getuid!(), []]);
  told.unfinished++;
}

function expectSame(what: string, is: Seen | undefined, wanted: Seen | undefined): void {
  if (!same(is, wanted)) throw new Error(`${what} is ${show(is)} and should be ${show(wanted)}`);
}

function show(seen: Seen | undefined): string {
  if (!seen) return 'absent';
  const { content, ...rest } = seen;
  return JSON.stringify({ ...rest, mode: seen.mode.toString(8), bytes: content?.length });
}

async function readFromServer(client: Client, dir: number, name: string): Promise<Seen> {
  const fid = await client.walk(dir, [name]);
  const { mode, uid, gid, rdev } = await client.getattr(fid);
  const type = mode & S_IFMT;
  const device = [(rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00)] as const;
  const target = type === S_IFLNK ? { target: await client.readlink(fid) } : {};
  const xattr = type === S_IFREG ? (await client.getxattr(fid, guestXattr).catch(() => '')).toString() : '';
  if (type === S_IFREG) await client.lopen(fid, 0);
  const content = type === S_IFREG ? { content: await client.readAll(fid) } : {};
  await client.clunk(fid);
  return {
    mode,
    uid,
    gid,
    ...(rdev === 0 ? {} : { device }),
    ...target,
    ...content,
    ...(xattr ? { xattr } : {}),
  };
}

/** The next server shows everything, hides and removes orphans, and all locks are free. */
async function checkServer({ model, writer }: Running, there: World): Promise<void> {
  const client = await Client.connect(address());
  const root = await client.attach(model, 0);
  const dir = await client.walk(root, [writer.directory]);
  for (const [name, seen] of there) {
    expectSame(`${model} ${writer.directory}/${name}, served`, await readFromServer(client, dir, name), seen);
  }
  const locked = await client.walk(dir, ['locked']);
  await client.lopen(locked, 2);
  const lock = { type: 1, flags: 0, start: 0, length: 0, proc_id: 2, client_id: 'after' };
  expect(await client.lock(locked, lock)).toBe(0);

  const directory = join(top, model, writer.directory);
  for (const name of readdirSync(directory)) {
    if (unfinished.test(name)) utimesSync(join(directory, name), 1, 1);
  }
  const listing = await client.walk(dir);
  await client.lopen(listing, 0);
  const names = (await client.readdir(listing)).map(({ name }) => name);
  expect(names.filter(name => name !== '.' && name !== '..').sort()).toEqual([...there.keys()].sort());
  // Not awaited.
  const left = () => readdirSync(directory).filter(name => unfinished.test(name));
  for (const end = Date.now() + 5000; left().length > 0 && Date.now() < end; ) await pause(5);
  expect(left()).toEqual([]);
  await client.clunk(listing, locked);
  for (const [name, seen] of there) {
    await client.unlinkat(dir, name, (seen!.mode & S_IFMT) === 0o040000 ? 0x200 : 0);
  }
  await client.clunk(dir);
  await client.unlinkat(root, writer.directory, 0x200);
  await client.close();
  expect(existsSync(directory)).toBe(false);
}

async function oneRound(round: number): Promise<void> {
  const running = await write(round);
  const enough = random.below(killAfterMax);
  while (running.reduce((sum, { writer }) => sum + writer.answered, 0) < enough) await pause(1);
  await pause(random.below(killAfterMsMax));
  process.kill(server!.pid, 'SIGKILL');
  for (const { ended, client } of running) {
    const error = await ended;
    if (!(error instanceof Disconnected)) throw error;
    await client.close();
  }
  const worlds = running.map(checkHost);
  server = await start();
  for (const [i, one] of running.entries()) await checkServer(one, worlds[i]!);
  told.answered += running.reduce((sum, { writer }) => sum + writer.answered, 0);
}

describe('a server that is killed at any moment', () => {
  it(`leaves every object whole or absent, keeps what it has answered, and holds no lock (seed ${seed})`, {
    timeout: 30_000 + rounds * 15_000,
  }, async () => {
    for (let round = 0; round < rounds; round++) {
      await oneRound(round);
      progress(`crash: round ${round + 1} of ${rounds}, ${JSON.stringify(told)}`);
    }
    expect(told.answered).toBeGreaterThan(0);
  });
});
