import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { listAttributesSync, removeAttributeSync } from 'fs-xattr';
import { Files, type ModelOptions } from '../fuzz/model/nodes.ts';
import { mappedOptions, noneOptions, passthroughOptions } from '../fuzz/model/options.ts';
import { Sequence, type Step, usersOf } from '../fuzz/sequences.ts';
import type { Backend } from '../support/backends.ts';
import type { Serving } from '../support/serve.ts';
import { ClientSender } from './client-sender.ts';

/** The directory on which another file system is mounted, in environments that have one. */
const mountPoint = 'm';
const nobody = 65534;

/** Users unknown to the host, with one group and no others; and root. */
const users = [54_321, 54_322, 0];
const groupsOf = (uid: number) => ({ gid: uid === 0 ? 0 : nobody, groups: [] });

/** Options of the model for an environment. With `mapped`, file system limits on targets and devices do not apply: they are file contents. */
function modelOptionsOf({ permissions, serverOwns, differs }: Backend): ModelOptions {
  if (serverOwns) {
    const id = differs.rights === 'of the owner' ? nobody : 0;
    return { ...noneOptions({ uid: id, gid: id, groups: [] }), ...differs, exports: 'apart' };
  }
  if (permissions) {
    const protectedHardlinks = readFileSync('/proc/sys/fs/protected_hardlinks', 'latin1').trim() === '1';
    const own = { permissions, users, groupsOf, protectedHardlinks, exports: 'apart' } as const;
    return { ...passthroughOptions, ...differs, ...own };
  }
  const { targetBytesMax, devicesMax, whiteouts, ...others } = differs;
  return { ...mappedOptions, ...others, exports: 'apart' };
}

/** The failure of a sequence and its steps so far. */
export interface Failure {
  readonly message: string;
  readonly steps: readonly Step[];
}

/** An export for sequences that run one after another, each in an empty directory. */
export class TempExport {
  readonly #name: string;
  readonly #serving: Serving;
  readonly #modelOptions: ModelOptions;
  readonly #anames: ReadonlyMap<string, string>;
  readonly #mounted: boolean;

  constructor(name: string, serving: Serving, backend: Backend) {
    this.#name = name;
    this.#serving = serving;
    this.#modelOptions = modelOptionsOf(backend);
    this.#anames = new Map([
      ['', name],
      ['/', name],
      ['ro', `${name}-readonly`],
    ]);
    this.#mounted = serving.prepare !== undefined;
    if (this.#mounted) {
      mkdirSync(join(this.#directory, mountPoint));
      chmodSync(join(this.#directory, mountPoint), this.#mode);
    }
    serving.prepare?.(`${name}/${mountPoint}`);
  }

  get #directory(): string {
    return join(this.#serving.directory!, this.#name);
  }

  get #mode(): number {
    return this.#modelOptions.permissions ? 0o777 : 0o755;
  }

  /** Empties the directory. The server keeps it open, so it cannot be replaced. */
  #clear(): void {
    for (const name of readdirSync(this.#directory, { encoding: 'buffer' })) {
      if (this.#mounted && name.toString('latin1') === mountPoint) continue;
      remove(this.#directory, name);
    }
    this.#reset(this.#directory);
    if (!this.#mounted) return;
    const below = join(this.#directory, mountPoint);
    for (const name of readdirSync(below, { encoding: 'buffer' })) remove(below, name);
    this.#reset(below);
  }

  #reset(directory: string): void {
    const { uid, gid } = this.#modelOptions.server ?? { uid: 0, gid: 0 };
    chownSync(directory, uid, gid);
    chmodSync(directory, this.#mode);
    for (const name of listAttributesSync(directory)) removeAttributeSync(directory, name);
  }

  /** Runs the steps of `next`, then audits the whole tree. Returns the failure, if any. */
  async run(next: (sequence: Sequence) => Step | undefined): Promise<Failure | undefined> {
    this.#clear();
    const files = new Files(this.#modelOptions, this.#mode);
    if (this.#mounted) files.mountOn(mountPoint, this.#mode);
    const exports = new Map([
      ['', false],
      ['/', false],
      ['ro', true],
    ]);
    // The last session runs the audit.
    const sessions = [...usersOf(this.#modelOptions), 0];
    const senders = await Promise.all(
      sessions.map(() => ClientSender.connect(this.#serving.socket, this.#anames)),
    );
    const sequence = new Sequence(senders, files, exports);
    const steps: Step[] = [];
    try {
      for (const step of Sequence.beginnings(sessions)) await sequence.say(step);
      for (let step = next(sequence); step; step = next(sequence)) {
        if (!sequence.fits(step)) continue;
        steps.push(step);
        await sequence.say(step);
      }
      await sequence.auditBy(sessions.length - 1);
      return undefined;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return { message: error.message, steps };
    } finally {
      await sequence.end();
    }
  }
}

function remove(directory: string, name: Buffer): void {
  rmSync(Buffer.concat([Buffer.from(`${directory}/`), name]), { recursive: true });
}
