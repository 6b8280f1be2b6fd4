import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command } from '../compiled.ts';

const source = fileURLToPath(new URL('lease.c', import.meta.url));

/** A process that holds a lease on a file: see lease.c. */
export class Lease {
  readonly #child: ChildProcess;
  readonly #directory: string;
  #said = '';

  private constructor(child: ChildProcess, directory: string) {
    this.#child = child;
    this.#directory = directory;
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
    });
  }

  static async take(file: string, kind: 'read' | 'write'): Promise<Lease> {
    const directory = mkdtempSync(join(tmpdir(), 'ninepd-lease-'));
    const program = join(directory, 'lease');
    command(process.env.CC ?? 'cc', '-std=c11', '-D_GNU_SOURCE', '-Wall', '-Werror', '-o', program, source);
    const child = spawn(program, [file, kind], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lease = new Lease(child, directory);
    await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
    if (!lease.#said.includes('held')) throw new Error(`no ${kind} lease on ${file} can be had`);
    return lease;
  }

  /** Whether a process waits for the lease to be released. */
  get isAsked(): boolean {
    return this.#said.includes('asked');
  }

  async giveUp(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.stdin!.end();
      await once(this.#child, 'exit');
    }
    rmSync(this.#directory, { recursive: true });
  }
}
