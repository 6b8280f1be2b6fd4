import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GuestChannel, type GuestResult, type GuestUser } from './guest-channel.ts';

/** Results of scripts/guest-image.mjs; all paths. */
export interface Manifest {
  kernel: string;
  initramfs: string;
  programs: string;
  rootDisk: string;
  qemu: string;
  /** A root directory with Debian's QEMU and libvirt, for chroot. */
  libvirtRoot: string;
  vsockDevice: string;
  kernelRelease: string;
  qemuVersion: string;
}

export interface GuestOptions {
  /** MiB of memory; default: 768. */
  memory?: number;
  cpus?: number;
  /** MiB of an empty, sparse ext4 disk on /scratch; default: none. */
  scratch?: number;
  /** Further QEMU arguments, such as devices. */
  extraArgs?: string[];
  /** Replaces `-m`: for memory that is shared with another process. */
  memoryArgs?: string[];
}

/**
 * The command line of a monitor that ends with its guest, SIGKILL included. `dir` is a new directory: `agent.sock` is listening
 * for the guest's virtio-serial port, the serial console is written to `console.log`.
 */
export type MonitorCommand = (manifest: Manifest, dir: string) => [program: string, ...args: string[]];

/** Kernel command line: without mitigations and checks, which cost an emulated guest time. */
export const kernelCommandLine =
  'console=ttyS0 loglevel=4 panic=-1 mitigations=off nokaslr random.trust_cpu=on no_timer_check init_on_alloc=0 cryptomgr.notests';

export interface ShOptions {
  /** Milliseconds until the command is killed and the call fails; default: 60,000. */
  timeout?: number;
  /** The expected exit status; default: 0. */
  expectCode?: number | 'any';
  user?: GuestUser;
}

/** Output of a command as text, without the last newline; `bytes` is standard output as it came. */
export interface ShResult {
  code: number;
  stdout: string;
  stderr: string;
  bytes: Buffer;
}

export interface MountOptions {
  trans: 'tcp' | 'virtio' | 'vsock';
  /** tcp: a port of the host's 127.0.0.1. vsock: the server's. */
  port?: number;
  /** vsock: the server's machine, 2 (the host) if left out. */
  cid?: number;
  /** virtio: the mount tag. */
  tag?: string;
  /** Mount point; created if missing. */
  path: string;
  aname?: string;
  cache?: 'none' | 'mmap' | 'loose' | 'readahead';
  access?: string;
  msize?: number;
  posixacl?: boolean;
  /** Further mount options, as mount(8) takes them. */
  extra?: string;
  /** Calls mount(2) directly: mount(8) of util-linux stats the mount and fails if root may not. */
  bare?: boolean;
}

export const root: GuestUser = { uid: 0, gid: 0 };
export const alice: GuestUser = { uid: 1000, gid: 1000, groups: [1000, 2000] };
export const bob: GuestUser = { uid: 1001, gid: 1001, groups: [1001, 2000] };

const repository = fileURLToPath(new URL('../..', import.meta.url));
const bootMsMax = 60_000;
const sigkill = 9;

// Harmless boot messages that match the pattern of complaints.
const complaint =
  /9pnet|9p:|v9fs|bogus|Unexpected packet tag|BUG|WARNING|Call Trace|blocked for more than|general protection|Oops/;
const healthy =
  /9pnet: Installing 9P2000 support|9p: Installing v9fs|Limiting 'msize'|EXT4-fs|Kernel command line/;

/** Builds missing parts first. */
export function readManifest(): Manifest {
  const path = execFileSync(process.execPath, [join(repository, 'scripts/guest-image.mjs')], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(readFileSync(path.trim(), 'utf8')) as Manifest;
}

/**
 * Linux in QEMU without KVM: Debian's kernel and user space, root on a read-only disk, /tmp in memory. Reaches this machine's
 * 127.0.0.1 as 10.0.2.2. Programs of test/guest/programs are on its PATH.
 */
export class Guest {
  readonly kernelRelease: string;
  readonly qemuVersion: string;
  /** Path of the guest's programs on this machine (static, so they run here too). */
  readonly programs: string;
  readonly #qemu: ChildProcess;
  readonly #channel: GuestChannel;
  readonly #dir: string;
  readonly #exited: Promise<void>;
  #stopping = false;

  private constructor(manifest: Manifest, qemu: ChildProcess, channel: GuestChannel, dir: string) {
    this.kernelRelease = manifest.kernelRelease;
    this.qemuVersion = manifest.qemuVersion;
    this.programs = manifest.programs;
    this.#qemu = qemu;
    this.#channel = channel;
    this.#dir = dir;
    this.#exited = new Promise(resolve => {
      qemu.once('exit', (code, signal) => {
        if (!this.#stopping) {
          channel.fail(new Error(`the guest is gone (QEMU: ${code ?? signal})\n${this.console()}`));
        }
        resolve();
      });
    });
  }

  static start(options: GuestOptions = {}): Promise<Guest> {
    return Guest.run((manifest, dir) => [manifest.qemu, ...qemuArguments(manifest, dir, options)]);
  }

  /** Runs the guest's monitor by a command of one's own. */
  static async run(command: MonitorCommand): Promise<Guest> {
    const manifest = readManifest();
    const began = Date.now();
    const dir = mkdtempSync(join(tmpdir(), 'ninepd-guest-'));
    const channel = await GuestChannel.listen(join(dir, 'agent.sock'));
    const log = openSync(join(dir, 'qemu.log'), 'w');
    const [program, ...args] = command(manifest, dir);
    const qemu = spawn(program, args, { stdio: ['ignore', log, log] });
    closeSync(log);
    const guest = new Guest(manifest, qemu, channel, dir);
    await guest.#boot();
    process.stderr.write(`guest: Linux ${manifest.kernelRelease} up in ${Date.now() - began} ms\n`);
    return guest;
  }

  async #boot(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string>(resolve => {
      timer = setTimeout(resolve, bootMsMax, 'is not up after a minute');
    });
    const outcome = await Promise.race([this.#channel.ready(), late, this.#exited.then(() => 'has ended')]);
    clearTimeout(timer);
    if (outcome === undefined) return;
    const text = `${readFileSync(join(this.#dir, 'qemu.log'), 'utf8')}\n${this.console()}`;
    await this.stop();
    throw new Error(`the guest ${outcome}\n${text}`);
  }

  /** The end of the serial console: only problems appear there after the boot. */
  console(): string {
    try {
      return readFileSync(join(this.#dir, 'console.log'), 'latin1').slice(-8000);
    } catch {
      return '(no console output)';
    }
  }

  /** Runs a bash script under errexit, nounset and pipefail, and throws with all its output if it does not end as
   * wanted. Several may run at once. */
  async sh(script: string, options: ShOptions = {}): Promise<ShResult> {
    const timeout = options.timeout ?? 60_000;
    let id = 0;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>(resolve => {
      timer = setTimeout(() => resolve(undefined), timeout);
    });
    const running = this.#channel.run(script, options.user ?? root, started => {
      id = started;
    });
    let result = await Promise.race([running, late]);
    clearTimeout(timer);
    if (result === undefined) {
      this.#channel.kill(id, sigkill);
      result = await Promise.race([
        running,
        new Promise<undefined>(resolve => {
          setTimeout(() => resolve(undefined), 3000);
        }),
      ]);
      throw new Error(describe(`not done after ${timeout} ms`, script, result));
    }
    const wanted = options.expectCode ?? 0;
    if (wanted !== 'any' && result.status !== wanted) {
      throw new Error(describe(`exit status ${result.status}, not ${wanted}`, script, result));
    }
    return {
      code: result.status,
      stdout: text(result.stdout),
      stderr: text(result.stderr),
      bytes: result.stdout,
    };
  }

  /** Mounts; returns the path. */
  async mount(options: MountOptions): Promise<string> {
    const { trans, path } = options;
    const list = trans === 'vsock' ? [] : ['version=9p2000.L', `trans=${trans}`];
    if (options.port !== undefined && trans === 'tcp') list.push(`port=${options.port}`);
    if (options.aname !== undefined) list.push(`aname=${options.aname}`);
    if (options.cache !== undefined) list.push(`cache=${options.cache}`);
    list.push(`access=${options.access ?? 'client'}`, `msize=${options.msize ?? 131_072}`);
    if (options.posixacl) list.push('posixacl');
    if (options.extra !== undefined) list.push(options.extra);
    const [type, bare] = trans === 'vsock' ? ['9pvsock', 'mount.9pvsock'] : ['9p', 'busybox mount -t 9p'];
    const program = options.bare ? bare : `mount -t ${type}`;
    await this.sh(`mkdir -p ${path} && ${program} ${deviceOf(options)} ${path} -o ${list.join(',')}`, {
      timeout: 15_000,
    });
    return path;
  }

  async umount(path: string): Promise<void> {
    await this.sh(`umount ${path}`, { timeout: 15_000 });
  }

  async dmesg(): Promise<string> {
    return (await this.sh('dmesg')).stdout;
  }

  /** Kernel log lines that a correct server never causes. */
  async complaints(): Promise<string[]> {
    const lines = (await this.dmesg()).split('\n');
    return lines.filter(line => complaint.test(line) && !healthy.test(line));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#channel.fail(new Error('the guest was stopped'));
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null) this.#qemu.kill('SIGKILL');
    await this.#exited;
    this.#channel.close();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

function deviceOf({ trans, tag = 'ninepd', cid = 2, port }: MountOptions): string {
  if (trans === 'tcp') return '10.0.2.2';
  return trans === 'vsock' ? `${cid}:${port}` : tag;
}

/** Without the flags for fast string instructions, which QEMU emulates byte by byte. */
const cpu = 'max,erms=off,fsrm=off';

function qemuArguments(manifest: Manifest, dir: string, options: GuestOptions): string[] {
  const args = ['-M', 'pc', '-cpu', cpu, '-accel', 'tcg,thread=multi', '-smp', `${options.cpus ?? 2}`];
  args.push(...(options.memoryArgs ?? ['-m', `${options.memory ?? 768}`]));
  args.push('-nodefaults', '-display', 'none', '-no-reboot');
  args.push('-kernel', manifest.kernel, '-initrd', manifest.initramfs);
  args.push('-append', kernelCommandLine);
  args.push('-serial', `file:${join(dir, 'console.log')}`);
  args.push('-drive', `file=${manifest.rootDisk},if=virtio,format=raw,readonly=on`);
  if (options.scratch !== undefined)
    args.push('-drive', scratchDisk(join(dir, 'scratch.ext4'), options.scratch));
  args.push('-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=agent');
  args.push('-chardev', `socket,id=agent,path=${join(dir, 'agent.sock')}`);
  args.push('-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile=');
  args.push(...(options.extraArgs ?? []));
  return args;
}

function scratchDisk(path: string, megabytes: number): string {
  const tool = process.env.PATH?.includes('/sbin') ? 'mke2fs' : '/usr/sbin/mke2fs';
  execFileSync(tool, ['-q', '-F', '-t', 'ext4', '-E', 'lazy_itable_init=1', path, `${megabytes}M`]);
  return `file=${path},if=virtio,format=raw,cache=unsafe`;
}

function text(bytes: Buffer): string {
  return bytes.toString('utf8').replace(/\n$/, '');
}

function describe(what: string, script: string, result: GuestResult | undefined): string {
  const out = result?.stdout.toString('utf8') ?? '(the command cannot be killed)';
  const err = result?.stderr.toString('utf8') ?? '';
  return `${what}\n--- script\n${script}\n--- stdout\n${out}\n--- stderr\n${err}`;
}
