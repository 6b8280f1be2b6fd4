import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';
import { CheckedGuest } from './checked-guest.ts';
import {
  abandon,
  countUnderLock,
  dyingMonitor,
  flushStorm,
  isCut,
  sendGarbage,
  type Targets,
} from './fault-injection.ts';
import { long, progress, seed, stress } from './options.ts';
import { Random } from './random.ts';
import { RealGuest } from './real-guest.ts';
import { rise, type Sample, Sampler } from './sampler.ts';

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const results = here('../../.cache/stress');

/** As text, since the sandbox keeps the server from its file. */
const reporter = `data:text/javascript;base64,${readFileSync(here('heap-reporter.mjs'), 'base64')}`;

const minutes = stress.minutes ?? 0.05;
const rate = stress.rate ?? 150;
const guestsPerModel = 2;
const models = ['mapped', 'passthrough'] as const;
/** Minimum duration for judging slopes: in a shorter run caches, pools and V8's heap still fill after its first quarter. */
const judgedMinutesMin = 30;
const samplesWanted = 240;
const faultMs = 400;

/** Allowed rise from the first to the last judged sample. */
const riseMax = {
  rssMiB: { most: 12, of: ({ rssMiB }: Sample) => rssMiB },
  heapMiB: { most: 2, of: ({ heapMiB }: Sample) => heapMiB },
  externalMiB: { most: 4, of: ({ externalMiB }: Sample) => externalMiB },
  descriptors: { most: 8, of: ({ descriptors }: Sample) => descriptors },
  'threads but for those of the pool': {
    most: 1,
    of: ({ threads, poolThreads }: Sample) => threads - poolThreads,
  },
};

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

let top: string;
let server: Ninepd;
let sampler: Sampler;
const random = new Random(seed);
const address = () => ({ path: join(top, 'socket') });
const connect = () => Client.connect(address(), 131_072);

beforeAll(async () => {
  top = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-soak-')));
  for (const model of models) {
    mkdirSync(join(top, model));
    chmodSync(join(top, model), 0o755);
  }
  server = await Ninepd.start({
    exports: models.map(model => ({ path: join(top, model), name: model, securityModel: model })),
    listen: [`unix://${address().path}`, `vhost-user://${join(top, 'vhost')}?tag=soak`, 'tcp://127.0.0.1:0'],
    // Injected faults are logged at level info.
    args: ['--log-level', 'warn'],
    env: { NODE_OPTIONS: `--import ${reporter}` },
  });
  sampler = new Sampler(server);
});

afterAll(async () => {
  await server?.stop();
  rmSync(top, { recursive: true, force: true });
});

describe('a server that runs for long', () => {
  it(`keeps what its guests wrote, and its memory, descriptors and latency, through every fault (seed ${seed})`, {
    timeout: minutes * 60_000 + 400_000,
  }, async () => {
    const soak = new Soak();
    await soak.start();
    const idle = sampler.descriptors();
    await soak.run(Date.now() + minutes * 60_000);
    await soak.verifyAll();
    await pause(1000);
    const left = sampler.descriptors();
    soak.write();
    expect(server.log()).not.toMatch(/ (ERROR|FATAL): /);
    expect(left).toBeLessThanOrEqual(idle);
    // A pool thread ends after five idle seconds.
    await expect.poll(() => sampler.poolThreads(), { timeout: 15_000 }).toBe(0);
    for (const model of models) expect(readdirSync(join(top, model)).filter(isHalfMade)).toEqual([]);
    if (minutes >= judgedMinutesMin) soak.judge();
  });
});

const isHalfMade = (name: string) => name.startsWith('.ninepd-new-');

const faults = ['cut', 'flush', 'abandon', 'nonsense', 'monitor'] as const;

class Soak {
  readonly #guests: CheckedGuest[] = [];
  readonly #faults = { cut: 0, flush: 0, abandon: 0, nonsense: 0, monitor: 0 };
  #counted = 0;
  #real: RealGuest | undefined;

  async start(): Promise<void> {
    const client = await connect();
    const fid = await client.attach('mapped', 0);
    await client.lcreate(fid, 'counter', 2);
    await client.close();
    for (const model of models) {
      for (let i = 0; i < guestsPerModel; i++) {
        const guest = new CheckedGuest(connect, model, `guest${i}`, new Random(random.below(2 ** 31)));
        this.#guests.push(guest);
      }
    }
    if (stress.guest) this.#real = await RealGuest.start(server.port, models);
    await pause(200);
  }

  async run(end: number): Promise<void> {
    const running = () => Date.now() < end;
    const probing = sampler.probe(await connect(), 'passthrough');
    await Promise.all([
      probing,
      ...this.#guests.map(guest => this.#work(guest, running)),
      this.#count('a', running),
      this.#count('b', running),
      this.#injectFault(running),
      this.#workReally(running),
      this.#sample(end).finally(() => sampler.stop()),
    ]);
  }

  async #work(guest: CheckedGuest, running: () => boolean): Promise<void> {
    const pauseMs = (1000 * this.#guests.length) / rate;
    await guest.start();
    for (let next = Date.now(); running(); next = Math.max(next + pauseMs, Date.now() - 1000)) {
      await guest.step();
      await pause(Math.max(0, next - Date.now()));
    }
  }

  async #workReally(running: () => boolean): Promise<void> {
    if (!this.#real) return;
    while (running()) await this.#real.round();
    await this.#real.stop();
  }

  /** Two guests increment one counter. */
  async #count(me: string, running: () => boolean): Promise<void> {
    while (running()) {
      const client = await connect();
      const fid = await client.walk(await client.attach('mapped', 0), ['counter']);
      await client.lopen(fid, 2);
      for (let i = 0; i < 20 && running(); i++) {
        await countUnderLock(client, fid, me);
        this.#counted++;
        await pause(100);
      }
      await client.close();
    }
  }

  async #injectFault(running: () => boolean): Promise<void> {
    while (running()) {
      await pause(faultMs);
      const targets = { address: address(), aname: random.pick(models), vhostUser: join(top, 'vhost') };
      const kind = random.pick(faults);
      this.#faults[kind]++;
      try {
        await this.#make(kind, targets);
      } catch (error) {
        throw new Error(`while injecting a fault (${kind}): ${error}; the server says: ${server.log()}`);
      }
    }
  }

  async #make(kind: (typeof faults)[number], targets: Targets): Promise<void> {
    if (kind === 'cut') random.pick(this.#guests).cut();
    if (kind === 'flush') await flushStorm(targets, random);
    if (kind === 'abandon') await abandon(targets, random);
    // The server may disconnect it.
    if (kind === 'nonsense') {
      await sendGarbage(targets, random).catch(error => {
        if (!isCut(error)) throw error;
      });
    }
    if (kind === 'monitor') await dyingMonitor(targets, random);
  }

  async #sample(end: number): Promise<void> {
    const everyMs = Math.max(1000, (minutes * 60_000) / samplesWanted);
    while (Date.now() + everyMs <= end) {
      await pause(everyMs);
      const sample = await sampler.sample();
      const left = Math.round((end - Date.now()) / 60_000);
      progress(`soak: ${left} min left, ${JSON.stringify({ ...sample, ...this.#totals() })}`);
    }
  }

  #totals() {
    const sum = (of: (guest: CheckedGuest) => number) => this.#guests.reduce((all, one) => all + of(one), 0);
    return {
      operations: sum(guest => guest.operations),
      compared: sum(guest => guest.compared),
      cuts: sum(guest => guest.cuts),
      counted: this.#counted,
      ...(this.#real ? { realRounds: this.#real.rounds } : {}),
      faults: this.#faults,
    };
  }

  async verifyAll(): Promise<void> {
    for (const guest of this.#guests) {
      await guest.compareAll();
      await guest.close();
    }
    const client = await connect();
    const fid = await client.walk(await client.attach('mapped', 0), ['counter']);
    await client.lopen(fid, 0);
    expect(Number((await client.read(fid, 0, 8)).toString('latin1'))).toBe(this.#counted);
    await client.close();
  }

  write(): void {
    mkdirSync(results, { recursive: true });
    const on = { minutes, rate, seed, node: process.version, date: new Date().toISOString() };
    const found = { on, totals: this.#totals(), samples: sampler.samples };
    writeFileSync(join(results, 'soak.json'), `${JSON.stringify(found, null, 1)}\n`);
    if (long) progress(`soak: ${JSON.stringify(found.totals)}`);
  }

  judge(): void {
    for (const [name, { most, of }] of Object.entries(riseMax)) {
      expect(rise(sampler.samples, of), `rise of ${name}`).toBeLessThan(most);
    }
    const median = (from: number, to: number) => {
      const all = sampler.samples.slice(sampler.samples.length * from, sampler.samples.length * to);
      return all.map(({ p50Ms }) => p50Ms).sort((a, b) => a - b)[all.length >> 1]!;
    };
    // The machine may be busy at the end: only a multiple is significant.
    expect(median(0.75, 1), 'p50 of the last quarter').toBeLessThan(3 * median(0.25, 0.5) + 1);
  }
}
