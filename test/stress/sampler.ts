import { readdirSync, readFileSync } from 'node:fs';
import type { Client } from '#client/client.ts';
import type { Ninepd } from '../support/ninepd.ts';

/** A sample of the server. */
export interface Sample {
  /** Seconds since the start. */
  seconds: number;
  rssMiB: number;
  /** V8's used heap after a collection. */
  heapMiB: number;
  /** ArrayBuffers and other memory outside V8's heap. */
  externalMiB: number;
  descriptors: number;
  threads: number;
  /** Pool threads among them, started while a file system blocks callers. */
  poolThreads: number;
  /** Share of a core since the previous sample. */
  cpu: number;
  /** Latency of the probe's requests since the previous sample. */
  p50Ms: number;
  p99Ms: number;
}

const probeMs = 50;
const ticksPerSecond = 100;

/** Samples a server started with heap-reporter.mjs, and its latency on a connection of its own. */
export class Sampler {
  readonly samples: Sample[] = [];
  readonly #server: Ninepd;
  readonly #pid: number;
  readonly #began = Date.now();
  #latencies: number[] = [];
  #cpuTicks: number;
  #sampled = Date.now();
  #probing = true;

  constructor(server: Ninepd) {
    this.#server = server;
    this.#pid = server.pid;
    this.#cpuTicks = this.#ticks();
  }

  /** Runs until `stop`: one request, then a pause. */
  async probe(client: Client, aname: string): Promise<void> {
    const root = await client.attach(aname, 0);
    const fid = await client.walk(root);
    await client.lcreate(fid, 'probe', 2);
    const page = Buffer.alloc(4096, 'p');
    const acts = [
      () => client.getattr(fid),
      () => client.read(fid, 0, 4096),
      () => client.write(fid, 0, page),
    ];
    for (let i = 0; this.#probing; i++) {
      const began = process.hrtime.bigint();
      await acts[i % acts.length]!();
      this.#latencies.push(Number(process.hrtime.bigint() - began) / 1e6);
      await new Promise(resolve => setTimeout(resolve, probeMs));
    }
    await client.close();
  }

  stop(): void {
    this.#probing = false;
  }

  #ticks(): number {
    // proc(5): utime and stime are the 14th and 15th field; the second, in brackets, may hold anything.
    const fields = readFileSync(`/proc/${this.#pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ');
    return Number(fields[11]) + Number(fields[12]);
  }

  #status(field: string): number {
    const text = readFileSync(`/proc/${this.#pid}/status`, 'latin1');
    return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)![1]);
  }

  descriptors(): number {
    return readdirSync(`/proc/${this.#pid}/fd`).length;
  }

  poolThreads(): number {
    const tasks = readdirSync(`/proc/${this.#pid}/task`);
    return tasks.filter(task => this.#isOfPool(task)).length;
  }

  #isOfPool(task: string): boolean {
    try {
      return readFileSync(`/proc/${this.#pid}/task/${task}/comm`, 'latin1') === 'ninepd-pool\n';
    } catch {
      // It has ended since the listing.
      return false;
    }
  }

  async sample(): Promise<Sample> {
    const { used, external } = await this.#heap();
    const sorted = this.#latencies.sort((a, b) => a - b);
    this.#latencies = [];
    const at = (share: number) => Number((sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(3));
    const ticks = this.#ticks();
    const now = Date.now();
    const sample = {
      seconds: Math.round((now - this.#began) / 1000),
      rssMiB: inMiB(this.#status('VmRSS') * 1024),
      heapMiB: inMiB(used),
      externalMiB: inMiB(external),
      descriptors: this.descriptors(),
      threads: this.#status('Threads'),
      poolThreads: this.poolThreads(),
      cpu: Number(((ticks - this.#cpuTicks) / ticksPerSecond / ((now - this.#sampled) / 1000)).toFixed(3)),
      p50Ms: at(0.5),
      p99Ms: at(0.99),
    };
    this.#cpuTicks = ticks;
    this.#sampled = now;
    this.samples.push(sample);
    return sample;
  }

  /** Requests a report by a signal. */
  async #heap(): Promise<{ used: number; external: number }> {
    const reports = () => this.#server.log().match(/^heap: .*$/gm) ?? [];
    const before = reports().length;
    process.kill(this.#pid, 'SIGUSR2');
    for (const end = Date.now() + 10_000; Date.now() < end; ) {
      const report = reports()[before];
      if (report !== undefined) return JSON.parse(report.slice('heap: '.length));
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    throw new Error('the server does not say what its heap is like');
  }
}

const inMiB = (bytes: number) => Number((bytes / 1048576).toFixed(2));

/**
 * Rise of a line through the samples: the median of all slopes between two (Theil–Sen), robust against outliers. Skips the
 * first samples, until all code has run and caches are full.
 */
export function rise(samples: readonly Sample[], value: (sample: Sample) => number): number {
  const judged = samples.slice(Math.floor(samples.length / 4));
  const slopes: number[] = [];
  for (const [i, a] of judged.entries()) {
    for (const b of judged.slice(i + 1)) {
      if (b.seconds > a.seconds) slopes.push((value(b) - value(a)) / (b.seconds - a.seconds));
    }
  }
  slopes.sort((a, b) => a - b);
  return (slopes[slopes.length >> 1] ?? 0) * (judged.at(-1)!.seconds - judged[0]!.seconds);
}
