import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Guest, type GuestOptions } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { type Cell, type Check, HostView, local, type Model, prelude } from './check.ts';
import { overTcp, type Way, type WayMaker } from './way.ts';

/** One guest, one ninepd that exports a directory under each security model, and a mount for every cell. */
export class Bench {
  readonly guest: Guest;
  readonly server: Ninepd;
  readonly #way: Way;
  readonly #dir: string;
  #made = 0;

  private constructor(guest: Guest, server: Ninepd, way: Way, dir: string) {
    this.guest = guest;
    this.server = server;
    this.#way = way;
    this.#dir = dir;
  }

  static async start(options: GuestOptions = {}, makeWay: WayMaker = overTcp): Promise<Bench> {
    const dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-export-')));
    const models: Model[] = ['mapped', 'passthrough'];
    for (const model of models) mkdirSync(join(dir, model));
    const exports = models.map(model => ({ path: join(dir, model), name: model, securityModel: model }));
    const way = await makeWay();
    const server = await Ninepd.start({ exports, listen: way.listen, userDatabase: userDatabase(dir) });
    try {
      // One processor: on a machine of two, the server and QEMU's own threads then have the other.
      const guest = await Guest.start({ scratch: 8192, cpus: 1, ...way.guest, ...options });
      if (way.modules) await guest.sh(`guest-module ${way.modules.join(' ')}`);
      return new Bench(guest, server, way, dir);
    } catch (error) {
      await server.stop();
      await way.stop();
      throw error;
    }
  }

  hostDir(model: Model): string {
    return join(this.#dir, model);
  }

  /** Where a cell is mounted; `local` is always there. */
  mountPoint(cell: Cell): string {
    return cell.model === 'local' ? '/scratch' : `/mnt/${cell.model}-${cell.cache}`;
  }

  async mount(cell: Cell, path = this.mountPoint(cell), extra?: string): Promise<string> {
    if (cell.model === 'local' || cell.cache === 'local') return path;
    return await this.guest.mount({
      ...this.#way.device(this.server, cell.model),
      aname: cell.model,
      cache: cell.cache,
      posixacl: true,
      path,
      extra,
    });
  }

  /** Runs a check in a directory of its own, then its part on the host. */
  async run(cell: Cell, check: Check): Promise<void> {
    this.#made += 1;
    const name = `check${this.#made}`;
    const dir = `${this.mountPoint(cell)}/${name}`;
    await this.guest.sh(`mkdir -m 0777 ${dir}`);
    if (cell.model !== 'local') check.prepare?.(join(this.hostDir(cell.model), name));
    const script = `${prelude}\ncd ${dir}\n${check.script}`;
    await this.guest.sh(script, { timeout: check.timeout ?? 60_000 });
    if (cell.model !== 'local') check.host?.(new HostView(cell.model, join(this.hostDir(cell.model), name)));
  }

  async stop(): Promise<void> {
    await this.guest.stop();
    await this.#way.stop();
    await this.server.stop();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** This machine's users and the guest's: under passthrough the host must know who is in which group. */
function userDatabase(dir: string): { passwd: string; group: string } {
  const passwd = join(dir, 'passwd');
  const group = join(dir, 'group');
  const ours = (line: string) => !/^[^:]*:[^:]*:(1000|1001|2000):/.test(line) && line !== '';
  const host = (path: string) => readFileSync(path, 'utf8').split('\n').filter(ours);
  const users = ['alice:x:1000:1000::/:/bin/false', 'bob:x:1001:1001::/:/bin/false'];
  const groups = ['alice:x:1000:', 'bob:x:1001:', 'team:x:2000:alice,bob'];
  writeFileSync(passwd, `${[...host('/etc/passwd'), ...users].join('\n')}\n`);
  writeFileSync(group, `${[...host('/etc/group'), ...groups].join('\n')}\n`);
  return { passwd, group };
}

/** Declares the tests of a list of checks: first on the guest's own ext4, then on every cell; at the end the kernel
 * log is clean, every mount comes off and the server holds nothing of the exports any more. */
export function testChecks(subject: string, cells: Cell[], checks: Check[], makeWay?: WayMaker): void {
  describe(subject, () => {
    let bench: Bench;
    beforeAll(async () => {
      bench = await Bench.start({}, makeWay);
      for (const cell of cells) await bench.mount(cell);
    });
    afterAll(async () => {
      await bench?.stop();
    });
    for (const cell of [local, ...cells]) {
      describe(cell.name, () => {
        for (const check of checks) {
          if (check.where?.(cell) ?? true) test(check.title, () => bench.run(cell, check));
        }
      });
    }
    test('the guest kernel has nothing to complain about', async () => {
      expect(await bench.guest.complaints()).toEqual([]);
    });
    test('after every umount the server holds no descriptor below its exports but their roots', async () => {
      for (const cell of cells) await bench.guest.umount(bench.mountPoint(cell));
      await expectOnlyRoots(bench);
    });
  });
}

/** Descriptors are closed a moment after the connection is, so this waits for up to two seconds. */
export async function expectOnlyRoots(bench: Bench): Promise<void> {
  const below = () =>
    [bench.hostDir('mapped'), bench.hostDir('passthrough')].flatMap(root =>
      bench.server.descriptorsBelow(root).filter(path => path !== root),
    );
  await expect.poll(below, { timeout: 2000, interval: 50 }).toEqual([]);
}
