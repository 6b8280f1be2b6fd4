import { readdirSync, readFileSync } from 'node:fs';

/** A process as proc_pid_status(5) shows it. */
export interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  /** The letter: S sleeps, D waits and cannot be killed, Z has ended. */
  readonly state: string;
}

/** Undefined when there is none of that id. */
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

/** The children of a process that have not ended. */
export function childrenOf(parent: number): Process[] {
  return readdirSync('/proc').flatMap(name => {
    const found = /^\d+$/.test(name) ? processOf(Number(name)) : undefined;
    return found?.parent === parent && found.state !== 'Z' ? [found] : [];
  });
}
