import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Guest, MountOptions } from '../support/guest.ts';
import { type Cell, type Check, HostView, type Model, prelude } from './check.ts';

/** Exports of every fixture: a directory for each model, and one that is read-only with both. `HostFixture` has `mapped-file` too. */
export const readonlyExports = { mapped: 'frozen', passthrough: 'cold' } as const;
export type ExportName = Model | 'mapped-file' | (typeof readonlyExports)[Model];

/** Mount options that select the server. */
export type Device = Pick<MountOptions, 'trans' | 'port' | 'tag' | 'cid' | 'msize'>;

/** A guest, a ninepd that it can mount, and ninepd's machine. */
export abstract class GuestFixture {
  abstract readonly guest: Guest;
  /** Factor for numbers of repetitions; below 1 where everything is slow. */
  readonly scale: number = 1;
  #made = 0;
  #clean = false;

  /** The mount options for a further mount. */
  protected abstract device(): Device;
  /** The path of an exported directory on the server's machine. */
  abstract hostDir(name: ExportName): string;
  /** Runs a bash script on the server's machine in an exported directory; resolves with its output without the last newline. */
  abstract onHost(name: ExportName, script: string): Promise<string>;
  /** Paths below the exports on which the server has descriptors. */
  abstract held(): Promise<string[]>;
  abstract stop(): Promise<void>;

  async mount(path: string, aname: string | undefined, more: Partial<MountOptions> = {}): Promise<string> {
    return await this.guest.mount({ ...this.device(), aname, path, ...more });
  }

  /** The mount point of a cell; `local` is always mounted. */
  mountPoint(cell: Cell): string {
    return cell.model === 'local' ? '/scratch' : `/mnt/${cell.model}-${cell.cache}`;
  }

  async mountCell(cell: Cell, path = this.mountPoint(cell)): Promise<string> {
    if (cell.model === 'local' || cell.cache === 'local') return path;
    return await this.mount(path, cell.model, { cache: cell.cache, posixacl: true });
  }

  /** Runs a check in a new directory, then its part on the host. */
  async run(cell: Cell, check: Check): Promise<void> {
    this.#made += 1;
    const name = `check${this.#made}`;
    const dir = `${this.mountPoint(cell)}/${name}`;
    await this.guest.sh(`mkdir -m 0777 ${dir}`);
    const { model } = cell;
    const work = check.work === undefined ? '' : `work=${Math.ceil(check.work * this.scale)}`;
    const there = (script: string) => this.onHost(model as Model, `cd ${name}\n${work}\n${script}`);
    if (model !== 'local' && check.prepare) await there(check.prepare);
    await this.guest.sh(`${prelude}\ncd ${dir}\n${work}\n${check.script}`, {
      timeout: check.timeout ?? 60_000,
    });
    if (model !== 'local') await check.host?.(new HostView(model, there));
  }

  /** Expects no complaints in the guest's kernel log, no mounts, and no descriptors of exports in the server. */
  async expectClean(): Promise<void> {
    expect(await this.guest.complaints()).toEqual([]);
    expect((await this.guest.sh('grep " 9p " /proc/mounts || true')).stdout).toBe('');
    // Descriptors are closed shortly after the connection.
    await expect.poll(() => this.held(), { timeout: 3000, interval: 50 }).toEqual([]);
    this.#clean = true;
  }

  /** Takes the fixture for the next suite; true if the previous one left it clean. */
  take(): boolean {
    const clean = this.#clean;
    this.#clean = false;
    return clean;
  }
}

export type FixtureFactory<B extends GuestFixture = GuestFixture> = () => Promise<B>;

/**
 * A fixture shared by the suites of a file, which run one after another. After a suite that did not leave it clean, the next
 * gets a new one, so that failures do not spread.
 */
export function sharedFixture<B extends GuestFixture>(start: FixtureFactory<B>): FixtureFactory<B> {
  let fixture: B | undefined;
  const stop = async () => {
    await fixture?.stop();
    fixture = undefined;
  };
  afterAll(stop);
  return async () => {
    if (fixture?.take()) return fixture;
    await stop();
    fixture = await start();
    return fixture;
  };
}

/**
 * Declares the tests of a list of checks on every cell. At the end the kernel log must be clean, every umount succeed, and the
 * server hold no descriptor of the exports.
 */
export function testChecks(subject: string, cells: Cell[], checks: Check[], make: FixtureFactory): void {
  describe(subject, () => {
    let fixture: GuestFixture;
    beforeAll(async () => {
      fixture = await make();
      for (const cell of cells) await fixture.mountCell(cell);
    });
    for (const cell of cells) {
      describe(cell.name, () => {
        for (const check of checks) {
          if (check.where?.(cell) ?? true) test(check.title, () => fixture.run(cell, check));
        }
      });
    }
    test('the guest’s kernel has nothing to complain about, and after every umount the server holds nothing', async () => {
      for (const cell of cells)
        if (cell.model !== 'local') await fixture.guest.umount(fixture.mountPoint(cell));
      await fixture.expectClean();
    });
  });
}
