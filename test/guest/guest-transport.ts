import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type GuestOptions, readManifest } from '../support/guest.ts';
import type { Ninepd } from '../support/ninepd.ts';
import type { Device } from './fixture.ts';

/** How a guest connects to the server. */
export interface GuestTransport {
  /** URIs on which the server listens. */
  readonly listen: string[];
  /** Options of the guest. */
  readonly guest: GuestOptions;
  /** Kernel modules that the guest loads. */
  readonly modules?: string[];
  /** The mount options for a further mount. */
  device(server: Ninepd): Device;
  /** Called when the guest has ended. */
  stop(): Promise<void>;
}

export type OpenTransport = () => Promise<GuestTransport>;

export const overTcp: OpenTransport = async () => ({
  listen: ['tcp://127.0.0.1:0'],
  guest: {},
  device: server => ({ trans: 'tcp', port: server.port }),
  stop: async () => undefined,
});

/** Guest memory that another process of this machine can map. */
export function sharedMemory(megabytes: number): string[] {
  const memory = `memory-backend-memfd,id=mem,size=${megabytes}M,share=on`;
  return ['-m', `${megabytes}`, '-object', memory, '-machine', 'memory-backend=mem'];
}

/** QEMU's arguments for a device; the configuration space has the tag's size by default. */
export function vhostUserDevice(path: string, tag: string, configBytes = 2 + tag.length): string[] {
  const options = `virtio-id=9,num_vqs=1,vq_size=128,config_size=${configBytes}`;
  const chardev = `socket,id=socket-${tag},path=${path}`;
  return ['-chardev', chardev, '-device', `vhost-user-test-device-pci,chardev=socket-${tag},${options}`];
}

/** A device can be mounted only once at a time, so there are three, each with every export. */
export const overVhostUser: OpenTransport = async () => {
  const dir = mkdtempSync(join(tmpdir(), 'ninepd-vhost-'));
  const tags = ['a', 'b', 'c'];
  let mounts = 0;
  return {
    listen: tags.map(tag => `vhost-user://${join(dir, tag)}?tag=${tag}`),
    guest: {
      memoryArgs: sharedMemory(768),
      extraArgs: tags.flatMap(tag => vhostUserDevice(join(dir, tag), tag)),
    },
    device: () => ({ trans: 'virtio', tag: tags[mounts++ % tags.length]! }),
    stop: async () => rmSync(dir, { recursive: true, force: true }),
  };
};

export const vsockPort = 564;

/**
 * Linux 6.17 and later 6.12 send more than 32 KiB in several segments. Version 0.3 of the device drops those, and the
 * connection hangs ("DescriptorLengthTooSmall" in its debug log).
 */
export const hybridMsize = 32_768;

/**
 * A vsock device outside QEMU that connects the guest's port P to the Unix socket `<uds>_P`, as Firecracker and Cloud
 * Hypervisor do. Independent of this machine's kernel.
 */
export class VsockDevice {
  /** URI on which the server listens. */
  readonly path: string;
  readonly guest: GuestOptions;
  readonly #child: ChildProcess;
  readonly #dir: string;
  #log = '';

  private constructor(child: ChildProcess, dir: string) {
    this.#child = child;
    this.#dir = dir;
    this.path = join(dir, `vm.vsock_${vsockPort}`);
    const chardev = `socket,id=vsock,path=${join(dir, 'control')}`;
    const extraArgs = ['-chardev', chardev, '-device', 'vhost-user-vsock-pci,chardev=vsock'];
    this.guest = { memoryArgs: sharedMemory(768), extraArgs };
    child.stderr?.setEncoding('utf8').on('data', text => {
      this.#log += text;
    });
  }

  static async start(): Promise<VsockDevice> {
    const dir = mkdtempSync(join(tmpdir(), 'ninepd-vsock-'));
    const control = join(dir, 'control');
    const args = ['--guest-cid', '5', '--socket', control, '--uds-path', join(dir, 'vm.vsock')];
    const child = spawn(readManifest().vsockDevice, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const device = new VsockDevice(child, dir);
    for (let waits = 0; !existsSync(control); waits++) {
      if (child.exitCode !== null || waits > 200) throw new Error(`no vsock device:\n${device.#log}`);
      await new Promise(resolve => setTimeout(resolve, 25));
    }
    return device;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGKILL');
      await once(this.#child, 'exit');
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

export const overHybridVsock: OpenTransport = async () => {
  const device = await VsockDevice.start();
  return {
    listen: [`unix://${device.path}`],
    guest: device.guest,
    modules: ['vmw_vsock_virtio_transport'],
    device: () => ({ trans: 'vsock', port: vsockPort, msize: hybridMsize }),
    stop: () => device.stop(),
  };
};
