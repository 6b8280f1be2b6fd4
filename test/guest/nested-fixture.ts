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
 * A guest that is also the host: ninepd runs in it and serves its kernel over AF_VSOCK loopback, `mapped` only. Independent of
 * this machine's kernel.
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
    // The third disk, after the root disk and /scratch.
    const extraArgs = ['-drive', `file=${disk},if=virtio,format=raw,readonly=on`];
    const guest = await Guest.start({ scratch: 8192, memory: 1536, cpus: 1, extraArgs });
    const fixture = new NestedFixture(guest, dir);
    await guest.sh(`
      guest-module vsock_loopback
      mkdir -p ${place} ${fixture.hostDir('mapped')} ${fixture.hostDir('frozen')}; mount -o ro /dev/vdc ${place}`);
    await fixture.serve();
    return fixture;
  }

  /** Starts the server; resolves when it serves. `before` runs in the shell that becomes the server. */
  async serve(listen = `vsock://1:${port}`, before = 'exec'): Promise<void> {
    const exports = [
      `--export ${this.hostDir('mapped')},name=mapped`,
      `--export ${this.hostDir('frozen')},name=${readonlyExports.mapped},readonly=on`,
    ];
    const command = `${place}/node ${place}/node_modules/ninepd/dist/cli/main.js serve ${exports.join(' ')} --listen ${listen}`;
    // As a service manager sets it; the guest's default is 4096, and descriptors of unlinked files are pinned.
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

  /** Sends a signal to the server; resolves when it has ended. */
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
