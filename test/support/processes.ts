import { readdirSync, readFileSync } from 'node:fs';

/** A process, from proc_pid_status(5). */
export interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  /** State: S sleeps, D waits uninterruptibly, Z has ended. */
  readonly state: string;
}

/** Undefined if there is no such process. */
export function processOf(pid: number): Process | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return undefined;
  }
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S*)`, 'm').exec(text)![1]!;
  return { pid, parent: Number(field('PPid')), name: field('Name'), state: field('State') };
}

/** The running children of a process. */
export function childrenOf(parent: number): Process[] {
  return readdirSync('/proc').flatMap(name => {
    const found = /^\d+$/.test(name) ? processOf(Number(name)) : undefined;
    return found?.parent === parent && found.state !== 'Z' ? [found] : [];
  });
}

/** The children of a process, and theirs. */
export function descendantsOf(parent: number): Process[] {
  return childrenOf(parent).flatMap(one => [one, ...descendantsOf(one.pid)]);
}

/** The descendants of a process that run the program's worker script, of `--workers` or `--isolation guest`. */
export function workersOf(parent: number): number[] {
  return childrenOf(parent).flatMap(({ pid }) =>
    /cli\/worker\.[jt]s\0/.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1')) ? [pid] : workersOf(pid),
  );
}
