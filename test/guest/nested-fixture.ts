import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Guest } from '../support/guest.ts';
import { type Device, type ExportName, GuestFixture, readonlyExports } from './fixture.ts';
import { makeProgramDisk } from './program-disk.ts';

const place = '/opt/ninepd';
const log = '/tmp/ninepd.log';
const exportsDir = '/scratch/exports';
const port = 564;

/**
 * A guest that is host and guest in one: ninepd runs in it and serves its own kernel by the loop of AF_VSOCK, mapped only.
 * This machine's kernel takes no part.
 */
export class NestedFixture extends GuestFixture {
  readonly guest: Guest;
  override readonly scale = 0.1;
  readonly #dir: string;

  private constructor(guest: Guest, dir: string) {
    super();
    this.guest = guest;
    this.#dir = dir;
  }

  static async start(): Promise<NestedFixture> {
    const dir = mkdtempSync(join(tmpdir(), 'ninepd-inner-'));
    const disk = join(dir, 'program.ext4');
    makeProgramDisk(disk);
    // Behind the root disk and /scratch it is the third.
    const extraArgs = ['-drive', `file=${disk},if=virtio,format=raw,readonly=on`];
    const guest = await Guest.start({ scratch: 8192, memory: 1536, cpus: 1, extraArgs });
    const fixture = new NestedFixture(guest, dir);
    await guest.sh(`
      guest-module vsock_loopback
      mkdir -p ${place} ${fixture.hostDir('mapped')} ${fixture.hostDir('frozen')}; mount -o ro /dev/vdc ${place}`);
    await fixture.serve();
    return fixture;
  }

  /** Starts the server, and resolves when it serves. `before` is what the shell runs in the process it will be. */
  async serve(listen = `vsock://1:${port}`, before = 'exec'): Promise<void> {
    const exports = [
      `--export ${this.hostDir('mapped')},name=mapped`,
      `--export ${this.hostDir('frozen')},name=${readonlyExports.mapped},readonly=on`,
    ];
    const command = `${place}/node ${place}/ninepd/dist/cli/main.js serve ${exports.join(' ')} --listen ${listen}`;
    // As a service manager would; the guest's own limit is 4096, and descriptors of unlinked files are shared out.
    await this.guest.sh(`
      ( ulimit -n 65536; ${before} ${command} ) </dev/null >${log} 2>&1 & echo $! >/tmp/ninepd.pid
      for i in $(seq 900); do
        grep -q '^listening on' ${log} && exit 0
        kill -0 $! || break
        sleep 0.1
      done
      cat ${log} >&2; exit 1`);
  }

  async log(): Promise<string> {
    return (await this.guest.sh(`cat ${log}`)).stdout;
  }

  protected device(): Device {
    return { trans: 'vsock', cid: 1, port };
  }

  hostDir(name: ExportName): string {
    return `${exportsDir}/${name}`;
  }

  async onHost(name: ExportName, script: string): Promise<string> {
    return (await this.guest.sh(`cd ${this.hostDir(name)}\n${script}`)).stdout;
  }

  async held(): Promise<string[]> {
    const list = `find /proc/$(cat /tmp/ninepd.pid)/fd -type l -printf "%l\\n" | grep "^${exportsDir}/[^/]*/" || true`;
    const { stdout } = await this.guest.sh(list);
    return stdout === '' ? [] : stdout.split('\n');
  }

  /** Ends the server by a signal, and resolves when it is gone. */
  async end(signal: 'TERM' | 'KILL'): Promise<void> {
    await this.guest.sh(`
      pid=$(cat /tmp/ninepd.pid); kill -${signal} $pid
      for i in $(seq 100); do kill -0 $pid 2>/dev/null || exit 0; sleep 0.1; done; exit 1`);
  }

  async stop(): Promise<void> {
    await this.guest.stop();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
