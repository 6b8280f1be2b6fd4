import { readdirSync, readlinkSync } from 'node:fs';

/** What the descriptors of a process are open on: proc_pid_fd(5). Those that are closed meanwhile are left out. */
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
