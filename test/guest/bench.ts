import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Guest, MountOptions } from '../support/guest.ts';
import { type Cell, type Check, HostView, type Model, prelude } from './check.ts';

/** What every bench exports: a directory under each model, and one that is read-only under both. */
export const readonlyExports = { mapped: 'frozen', passthrough: 'cold' } as const;
export type ExportName = Model | (typeof readonlyExports)[Model];

/** A way to name the server in a mount. */
export type Device = Pick<MountOptions, 'trans' | 'port' | 'tag' | 'cid' | 'msize'>;

/** A guest, a ninepd that it can mount, and the machine that ninepd runs on. */
export abstract class Bench {
  abstract readonly guest: Guest;
  #made = 0;

  /** The server for one mount more. */
  protected abstract device(): Device;
  /** Where an exported directory lies on the server's machine. */
  abstract hostDir(name: ExportName): string;
  /** Runs a bash script on the server's machine in an exported directory; resolves with its output without the last newline. */
  abstract onHost(name: ExportName, script: string): Promise<string>;
  /** Paths below the exports of which the server holds descriptors, but for the exports themselves. */
  abstract held(): Promise<string[]>;
  abstract stop(): Promise<void>;

  async mount(path: string, aname: string | undefined, more: Partial<MountOptions> = {}): Promise<string> {
    return await this.guest.mount({ ...this.device(), aname, path, ...more });
  }

  /** Where a cell is mounted; `local` is always there. */
  mountPoint(cell: Cell): string {
    return cell.model === 'local' ? '/scratch' : `/mnt/${cell.model}-${cell.cache}`;
  }

  async mountCell(cell: Cell, path = this.mountPoint(cell)): Promise<string> {
    if (cell.model === 'local' || cell.cache === 'local') return path;
    return await this.mount(path, cell.model, { cache: cell.cache, posixacl: true });
  }

  /** Runs a check in a directory of its own, then its part on the host. */
  async run(cell: Cell, check: Check): Promise<void> {
    this.#made += 1;
    const name = `check${this.#made}`;
    const dir = `${this.mountPoint(cell)}/${name}`;
    await this.guest.sh(`mkdir -m 0777 ${dir}`);
    const { model } = cell;
    const there = (script: string) => this.onHost(model as Model, `cd ${name}\n${script}`);
    if (model !== 'local' && check.prepare) await there(check.prepare);
    await this.guest.sh(`${prelude}\ncd ${dir}\n${check.script}`, { timeout: check.timeout ?? 60_000 });
    if (model !== 'local') await check.host?.(new HostView(model, there));
  }

  /** Fails unless the guest's kernel has had nothing to complain about and, all being unmounted, the server holds nothing. */
  async expectClean(): Promise<void> {
    expect(await this.guest.complaints()).toEqual([]);
    // Descriptors are closed a moment after the connection is.
    await expect.poll(() => this.held(), { timeout: 3000, interval: 50 }).toEqual([]);
  }
}

export interface BenchOptions {
  /** One if left out: on a machine of two, the server and QEMU's own threads then have the other. */
  readonly cpus?: number;
  /** Further QEMU arguments, given where the mapped export lies. */
  readonly devices?: (mappedDir: string) => string[];
}

export type BenchMaker = (options?: BenchOptions) => Promise<Bench>;

/** Declares the tests of a list of checks on every cell; at the end the kernel log is clean, every mount comes off and the
 * server holds nothing of the exports any more. */
export function testChecks(subject: string, cells: Cell[], checks: Check[], make: BenchMaker): void {
  describe(subject, () => {
    let bench: Bench;
    beforeAll(async () => {
      bench = await make();
      for (const cell of cells) await bench.mountCell(cell);
    });
    afterAll(async () => {
      await bench?.stop();
    });
    for (const cell of cells) {
      describe(cell.name, () => {
        for (const check of checks) {
          if (check.where?.(cell) ?? true) test(check.title, () => bench.run(cell, check));
        }
      });
    }
    test('the guest’s kernel has nothing to complain about, and after every umount the server holds nothing', async () => {
      for (const cell of cells) if (cell.model !== 'local') await bench.guest.umount(bench.mountPoint(cell));
      await bench.expectClean();
    });
  });
}
