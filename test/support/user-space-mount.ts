import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { compiled } from './compiled.ts';

/** A FUSE file system of a test program, until its standard input ends: stalling.c, passing.c. */
export class UserSpaceMount {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Runs the program; resolves when it has mounted. */
  static async start(source: string, ...args: readonly string[]): Promise<UserSpaceMount> {
    const child = spawn(compiled(source), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const [said] = await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
    if (!String(said).startsWith('mounted'))
      throw new Error(`the file system for the tests could not be mounted: ${args.join(' ')}`);
    return new UserSpaceMount(child);
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Unmounts; hanging calls fail. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin!.end();
    await once(this.#child, 'exit');
  }
}
