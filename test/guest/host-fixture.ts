import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
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
const recordFiles = 'mapped-file';

export interface HostFixtureOptions {
  /** Default: 1, which leaves the other of two processors to the server and QEMU's threads. */
  readonly cpus?: number;
}

/** Tags and models of QEMU's own devices, which serve the mapped exports. */
const qemuTags = { mapped: 'qemu', 'mapped-file': 'qemu-files' } as const;
const qemuModels = { mapped: 'mapped-xattr', 'mapped-file': 'mapped-file' } as const;
export type QemuModel = keyof typeof qemuTags;

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
    for (const name of [...models, recordFiles, readonlyDir]) mkdirSync(join(dir, name));
    const ofModels = models.flatMap(model => [
      { path: join(dir, model), name: model, securityModel: model },
      { path: join(dir, readonlyDir), name: readonlyExports[model], securityModel: model, readonly: true },
    ]);
    const files = { path: join(dir, recordFiles), name: recordFiles, securityModel: recordFiles } as const;
    const exports = [...ofModels, files];
    const transport = await openTransport();
    // The guest's users and groups are not those of this machine, which passthrough must do without.
    const server = await Ninepd.start({
      ...{ exports, listen: transport.listen },
      args: ['--trusted-xattrs', 'on'],
    });
    const end = async () => {
      await transport.stop();
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    };
    try {
      const extraArgs = [
        ...(transport.guest.extraArgs ?? []),
        ...qemuDevice(dir, 'mapped'),
        ...qemuDevice(dir, recordFiles),
      ];
      const guest = await Guest.start({ scratch: 8192, cpus, ...transport.guest, extraArgs });
      if (transport.modules) await guest.sh(`guest-module ${transport.modules.join(' ')}`);
      return new HostFixture({ guest, server, device: () => transport.device(server), end, dir });
    } catch (error) {
      await end();
      throw error;
    }
  }

  /** Mounts a mapped export by QEMU's own device. */
  async mountQemu(
    path: string,
    more: Partial<MountOptions> = {},
    model: QemuModel = 'mapped',
  ): Promise<string> {
    return await this.guest.mount({ trans: 'virtio', tag: qemuTags[model], path, posixacl: true, ...more });
  }

  protected device(): Device {
    return this.#device();
  }

  hostDir(name: ExportName): string {
    const isReadonly = name === readonlyExports.mapped || name === readonlyExports.passthrough;
    return join(this.#dir, isReadonly ? readonlyDir : name);
  }

  async onHost(name: ExportName, script: string): Promise<string> {
    const PATH = `${this.guest.programs}:${process.env.PATH}`;
    const options = { cwd: this.hostDir(name), env: { ...process.env, PATH } };
    const bash = promisify(execFile)('bash', ['-euo', 'pipefail', '-c', script], options);
    return (await bash).stdout.replace(/\n$/, '');
  }

  async held(): Promise<string[]> {
    const roots = [...models, recordFiles, readonlyDir].map(name => join(this.#dir, name));
    return this.server.descriptorsBelow(this.#dir).filter(path => !roots.includes(path));
  }

  async stop(): Promise<void> {
    await this.guest.stop();
    await this.#end();
  }
}

function qemuDevice(dir: string, model: QemuModel): string[] {
  const path = join(dir, model);
  return [
    ...['-fsdev', `local,id=${model},path=${path},security_model=${qemuModels[model]},multidevs=remap`],
    ...['-device', `virtio-9p-pci,fsdev=${model},mount_tag=${qemuTags[model]}`],
  ];
}
