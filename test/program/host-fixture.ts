import { closeSync, constants, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { type Name, nameOf } from '#base/name.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests make devices and files of other users: run them as root (sudo npm test).');
}

/** A directory writable for every user, and a descriptor of it; removed after the file's tests. */
export function freshDirectory(parent: string = tmpdir()): { path: string; fd: number } {
  const path = mkdtempSync(join(parent, 'ninepd-host-'));
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  afterAll(() => {
    closeSync(fd);
    rmSync(path, { recursive: true });
  });
  return { path, fd };
}

export const n = (text: string): Name => nameOf(text);

/** The error of a call, thrown or rejected. */
export async function refusal(act: () => unknown): Promise<unknown> {
  try {
    await act();
  } catch (reason) {
    return reason;
  }
  return 'not refused';
}

export const descriptorsOpen = (): number => readdirSync('/proc/self/fd').length;
