import { readdirSync, readlinkSync } from 'node:fs';

/** Targets of a process's descriptors: proc_pid_fd(5). Skips those closed meanwhile. */
export function heldBy(pid: number | 'self' = 'self'): string[] {
  const table = `/proc/${pid}/fd`;
  return readdirSync(table).flatMap(fd => {
    try {
      return [readlinkSync(`${table}/${fd}`)];
    } catch {
      return [];
    }
  });
}
