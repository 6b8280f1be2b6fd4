import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Guest, type MountOptions } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import type { Model } from './check.ts';
import {
  type Device,
  type ExportName,
  type FixtureFactory,
  GuestFixture,
  readonlyExports,
} from './fixture.ts';
import type { OpenTransport } from './guest-transport.ts';

const models: Model[] = ['mapped', 'passthrough'];
const readonlyDir = 'readonly';

export interface HostFixtureOptions {
  /** Default: 1, which leaves the other of two processors to the server and QEMU's threads. */
  readonly cpus?: number;
}

/** Tag of QEMU's own device, which serves the mapped export with `mapped-xattr`. */
const qemuTag = 'qemu';

/** ninepd on this machine. */
export class HostFixture extends GuestFixture {
  readonly guest: Guest;
  readonly server: Ninepd;
  readonly #device: () => Device;
  readonly #end: () => Promise<void>;
  readonly #dir: string;

  private constructor(parts: {
    guest: Guest;
    server: Ninepd;
    device: () => Device;
    end: () => Promise<void>;
    dir: string;
  }) {
    super();
    this.guest = parts.guest;
    this.server = parts.server;
    this.#device = parts.device;
    this.#end = parts.end;
    this.#dir = parts.dir;
  }

  static over(openTransport: OpenTransport, options: HostFixtureOptions = {}): FixtureFactory<HostFixture> {
    return () => HostFixture.start(openTransport, options);
  }

  static async start(openTransport: OpenTransport, { cpus = 1 }: HostFixtureOptions): Promise<HostFixture> {
    const dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-export-')));
    for (const name of [...models, readonlyDir]) mkdirSync(join(dir, name));
    const exports = models.flatMap(model => [
      { path: join(dir, model), name: model, securityModel: model },
      { path: join(dir, readonlyDir), name: readonlyExports[model], securityModel: model, readonly: true },
    ]);
    const transport = await openTransport();
    const server = await Ninepd.start({
      ...{ exports, listen: transport.listen, userDatabase: userDatabase(dir) },
      args: ['--trusted-xattrs', 'on'],
    });
    const end = async () => {
      await transport.stop();
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    };
    try {
      const extraArgs = [...(transport.guest.extraArgs ?? []), ...qemuDevice(join(dir, 'mapped'))];
      const guest = await Guest.start({ scratch: 8192, cpus, ...transport.guest, extraArgs });
      if (transport.modules) await guest.sh(`guest-module ${transport.modules.join(' ')}`);
      return new HostFixture({ guest, server, device: () => transport.device(server), end, dir });
    } catch (error) {
      await end();
      throw error;
    }
  }

  /** Mounts the mapped export by QEMU's own device. */
  async mountQemu(path: string, more: Partial<MountOptions> = {}): Promise<string> {
    return await this.guest.mount({ trans: 'virtio', tag: qemuTag, path, posixacl: true, ...more });
  }

  protected device(): Device {
    return this.#device();
  }

  hostDir(name: ExportName): string {
    return join(this.#dir, name === 'mapped' || name === 'passthrough' ? name : readonlyDir);
  }

  async onHost(name: ExportName, script: string): Promise<string> {
    const PATH = `${this.guest.programs}:${process.env.PATH}`;
    const options = { cwd: this.hostDir(name), env: { ...process.env, PATH } };
    const bash = promisify(execFile)('bash', ['-euo', 'pipefail', '-c', script], options);
    return (await bash).stdout.replace(/\n$/, '');
  }

  async held(): Promise<string[]> {
    const roots = [...models, readonlyDir].map(name => join(this.#dir, name));
    return this.server.descriptorsBelow(this.#dir).filter(path => !roots.includes(path));
  }

  async stop(): Promise<void> {
    await this.guest.stop();
    await this.#end();
  }
}

function qemuDevice(dir: string): string[] {
  return [
    ...['-fsdev', `local,id=q,path=${dir},security_model=mapped-xattr,multidevs=remap`],
    ...['-device', `virtio-9p-pci,fsdev=q,mount_tag=${qemuTag}`],
  ];
}

/** Users of this machine and the guest: with passthrough the host must know their groups. */
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
