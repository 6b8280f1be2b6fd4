import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setAttributeSync } from 'fs-xattr';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';
import { progress, seed, stress } from './options.ts';
import { type Canary, RaceClient } from './race-client.ts';
import { Random } from './random.ts';

const minutes = (stress.minutes ?? 0.1) / 2;
const models = ['mapped', 'passthrough'] as const;
const clientsPerModel = 2;
/** Concurrent clients on each connection. */
const raceClientsPerConnection = 4;
const progressMs = 10_000;

let top: string;
let swapper: string;

beforeAll(() => {
  top = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-race-')));
  chmodSync(top, 0o777);
  swapper = join(top, 'swapper');
  const source = fileURLToPath(new URL('swapper.c', import.meta.url));
  execFileSync(process.env.CC ?? 'cc', [
    '-std=gnu11',
    '-O2',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-o',
    swapper,
    source,
  ]);
});

afterAll(() => rmSync(top, { recursive: true, force: true }));

/** A tree with all permissions for everybody, so that only the server keeps clients out. */
class Bait implements Canary {
  readonly path = join(top, 'canary');
  readonly secret: string;
  readonly inodes: ReadonlySet<number>;
  readonly #files: readonly string[];
  readonly #all: readonly string[];
  readonly #before: string[];

  constructor(secret: string) {
    this.secret = secret;
    const inner = join(this.path, 'inner');
    mkdirSync(inner, { recursive: true });
    this.#files = [join(this.path, 'secret'), join(inner, 'deep'), join(this.path, `name-${secret}`)];
    this.#all = [...this.#files, this.path, inner];
    for (const file of this.#files) writeFileSync(file, `${secret}\n`);
    for (const path of this.#all) {
      setAttributeSync(path, 'user.canary', Buffer.from(secret));
      chmodSync(path, 0o777);
      // Older than mtime, so that the first read changes it (relatime).
      utimesSync(path, 1, 2);
    }
    this.inodes = new Set(this.#all.map(path => lstatSync(path).ino));
    this.#before = this.#state();
  }

  /** The times of an object, including atime, which a read changes. */
  #state(): string[] {
    return this.#all.map(path => {
      const { mode, uid, gid, nlink, size, ctimeNs, mtimeNs, atimeNs } = lstatSync(path, { bigint: true });
      return `${path} ${[mode, uid, gid, nlink, size, ctimeNs, mtimeNs, atimeNs].join(' ')}`;
    });
  }

  /** Does not read, so that it is not mistaken for a client. */
  check(): void {
    expect(this.#state()).toEqual(this.#before);
  }

  /** Ends the watch. */
  checkAll(): void {
    this.check();
    expect(this.#files.map(file => readFileSync(file, 'utf8'))).toEqual(
      this.#files.map(() => `${this.secret}\n`),
    );
    const there = readdirSync(this.path, { recursive: true }).map(name => join(this.path, String(name)));
    expect(there.sort()).toEqual(this.#all.filter(path => path !== this.path).sort());
  }
}

interface Swapping {
  readonly model: (typeof models)[number];
  readonly directory: string;
  readonly child: ChildProcess;
  output: string;
}

async function startSwapper(model: (typeof models)[number], canary: string): Promise<Swapping> {
  const directory = join(top, model);
  const limbo = join(top, `limbo-${model}`);
  for (const path of [directory, limbo]) {
    mkdirSync(path);
    chmodSync(path, 0o777);
  }
  const child = spawn(swapper, [directory, limbo, canary, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const swapping: Swapping = { model, directory, child, output: '' };
  child.stdout!.setEncoding('utf8').on('data', text => {
    swapping.output += text;
  });
  while (!swapping.output.includes('ready')) {
    if (child.exitCode !== null) throw new Error(`the swapper ended: ${swapping.output}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  return swapping;
}

async function stopSwapper({ child }: Swapping): Promise<void> {
  if (child.exitCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

/** Stops all when one fails. */
async function together(tasks: readonly ((running: () => boolean) => Promise<void>)[]): Promise<void> {
  const end = Date.now() + minutes * 60_000;
  let failed = false;
  const running = () => !failed && Date.now() < end;
  await Promise.all(
    tasks.map(task =>
      task(running).catch(error => {
        failed = true;
        throw error;
      }),
    ),
  );
}

/** Checks the canary continuously, and prints progress. */
async function watch(bait: Bait, clients: readonly RaceClient[], running: () => boolean): Promise<void> {
  for (let next = Date.now() + progressMs; running(); ) {
    await new Promise(resolve => setTimeout(resolve, 50));
    bait.check();
    if (Date.now() < next) continue;
    next += progressMs;
    const errors: Record<string, number> = {};
    for (const [name, count] of clients.flatMap(one => [...one.errors])) {
      errors[name] = (errors[name] ?? 0) + count;
    }
    const operations = clients.reduce((sum, one) => sum + one.operations, 0);
    progress(`race: ${operations} operations, ${JSON.stringify(errors)}`);
  }
}

describe('an export that somebody on the host swaps about', () => {
  let server: Ninepd;
  let swapping: Swapping[] = [];
  afterAll(async () => {
    await Promise.all(swapping.map(stopSwapper));
    await server?.stop();
  });

  it(`never leads a client out of it (seed ${seed})`, { timeout: minutes * 60_000 + 60_000 }, async () => {
    const random = new Random(seed);
    const bait = new Bait(`canary-${random.bytes(12).toString('hex')}`);
    swapping = await Promise.all(models.map(model => startSwapper(model, bait.path)));
    server = await Ninepd.start({
      exports: swapping.map(({ model, directory }) => ({
        path: directory,
        name: model,
        securityModel: model,
      })),
      listen: [`unix://${join(top, 'socket')}`],
      args: ['--log-level', 'error'],
    });
    const idle = readdirSync(`/proc/${server.pid}/fd`).length;
    const clients: Client[] = [];
    const racing: RaceClient[] = [];
    for (const model of models) {
      for (let i = 0; i < clientsPerModel; i++) {
        const client = await Client.connect({ path: join(top, 'socket') });
        clients.push(client);
        // The worst case: in passthrough this is root of the host.
        const root = await client.attach(model, 0);
        for (let j = 0; j < raceClientsPerConnection; j++) {
          racing.push(new RaceClient(client, root, bait, new Random(random.below(2 ** 31))));
        }
      }
    }
    await together([
      running => watch(bait, racing, running),
      ...racing.map(one => (running: () => boolean) => one.run(running)),
    ]);
    await Promise.all(clients.map(client => client.close()));
    await Promise.all(swapping.map(stopSwapper));
    bait.checkAll();
    for (const { model, output } of swapping) {
      progress(`race: ${model}, ${output.split('\n').at(-2)}`);
      expect(output).toMatch(/^ready\nswaps: \d{3,}\n$/);
    }
    expect(server.log()).not.toMatch(/ (ERROR|FATAL): /);
    await new Promise(resolve => setTimeout(resolve, 500));
    expect(readdirSync(`/proc/${server.pid}/fd`).length).toBeLessThanOrEqual(idle);
    expect(await server.stop()).toBe(0);
  });
});
