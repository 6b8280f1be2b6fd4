import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { heldBy } from './descriptors.ts';

const repository = fileURLToPath(new URL('../..', import.meta.url));
/** The one that was built, or the one that is installed from the tarball (scripts/install-package.mjs). */
const program = process.env.NINEPD_PROGRAM ?? join(repository, 'dist/cli/main.js');
const startMsMax = 20_000;
const stopMsMax = 10_000;

export interface NinepdExport {
  path: string;
  name: string;
  securityModel: 'mapped' | 'mapped-file' | 'passthrough' | 'none';
  readonly?: boolean;
  /** Further settings, `key=value`. */
  settings?: readonly string[];
}

export interface NinepdOptions {
  exports: NinepdExport[];
  /** URIs to listen on; default: a free TCP port. */
  listen?: string[];
  /** Further command line options. */
  args?: string[];
  env?: NodeJS.ProcessEnv;
  /** The uid and gid that it has from the start. */
  user?: number;
  /** Its RLIMIT_NOFILE. */
  openFilesMax?: number;
  /** Files mounted over /etc/passwd and /etc/group in its mount namespace (needs root). */
  userDatabase?: { passwd: string; group: string };
}

const withUserDatabase = 'mount --bind "$1" /etc/passwd; mount --bind "$2" /etc/group; shift 2; exec "$@"';

/** The program as a process. */
export class Ninepd {
  readonly #child: ChildProcess;
  #log = '';
  /** Resolves when it has ended and its standard error is closed. */
  readonly silent: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.silent = once(child, 'close');
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#log += text;
    });
  }

  static async start(options: NinepdOptions): Promise<Ninepd> {
    if (!existsSync(program)) throw new Error(`${program} is not there: npm run build`);
    const listen = options.listen ?? ['tcp://127.0.0.1:0'];
    const args = [program, 'serve'];
    for (const { path, name, securityModel, readonly, settings = [] } of options.exports) {
      args.push(
        '--export',
        [
          `${path},name=${name},security_model=${securityModel}`,
          ...(readonly ? ['readonly=on'] : []),
          ...settings,
        ].join(','),
      );
    }
    for (const uri of listen) args.push('--listen', uri);
    args.push(...(options.args ?? []));
    // Tests run alone on their machine.
    if (args.some(arg => arg.includes('passthrough'))) args.push('--insecure-loopback');
    const child = spawnNode(args, options);
    const server = new Ninepd(child);
    await server.#listening(listen.length);
    return server;
  }

  async #listening(count: number): Promise<void> {
    const end = Date.now() + startMsMax;
    while (this.listeners().length < count) {
      if (this.#child.exitCode !== null || Date.now() > end) {
        this.#child.kill('SIGKILL');
        throw new Error(`ninepd does not listen (exit status ${this.#child.exitCode})\n${this.#log}`);
      }
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }

  /** The URIs that it has printed. */
  listeners(): string[] {
    return [...this.#log.matchAll(/listening on (\S+)/g)].map(match => match[1] ?? '');
  }

  /** The port of its first TCP listener. */
  get port(): number {
    const port = /^tcp:.*:(\d+)$/.exec(this.listeners().find(uri => uri.startsWith('tcp:')) ?? '')?.[1];
    if (port === undefined) throw new Error(`no TCP listener in:\n${this.#log}`);
    return Number(port);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Its standard error. */
  log(): string {
    return this.#log;
  }

  /** Paths of its descriptors below `directory` (given without symlinks). */
  descriptorsBelow(directory: string): string[] {
    return heldBy(this.pid).filter(path => path === directory || path.startsWith(`${directory}/`));
  }

  /** Sends SIGTERM; resolves to its exit status, or null if it had to be killed. */
  async stop(): Promise<number | null> {
    if (this.running) {
      this.#child.kill('SIGTERM');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopMsMax);
      await once(this.#child, 'exit');
      clearTimeout(timer);
    }
    return this.#child.exitCode;
  }
}

function spawnNode(args: string[], { userDatabase, env, openFilesMax, user }: NinepdOptions): ChildProcess {
  const command = [process.execPath, ...args];
  if (userDatabase !== undefined) {
    const { passwd, group } = userDatabase;
    command.unshift('unshare', '--mount', 'sh', '-ec', withUserDatabase, 'sh', passwd, group);
  }
  if (openFilesMax !== undefined) command.unshift('prlimit', `--nofile=${openFilesMax}`);
  return spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
    ...(user === undefined ? {} : { uid: user, gid: user }),
  });
}
