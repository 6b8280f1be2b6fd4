import { accessSync, constants } from 'node:fs';
import type { ExportOptions } from '#exports/exports.ts';
import { isTreeModule } from '#exports/tree-module.ts';

/** What lets an export be served, but most likely not as it is meant. */
export function exportWarnings(exports: readonly ExportOptions[]): string[] {
  return exports
    .filter(one => !isTreeModule(one))
    .flatMap(one => [modeWarning(one), writeWarning(one)].map(text => text && `export ${one.path}: ${text}`))
    .filter(text => text !== undefined);
}

function modeWarning({ fmode = 0o600, dmode = 0o700 }: ExportOptions): string | undefined {
  const lacks = (fmode & 0o600) !== 0o600 ? 'fmode' : (dmode & 0o700) !== 0o700 ? 'dmode' : undefined;
  if (lacks === undefined) return undefined;
  const octal = `0${(lacks === 'fmode' ? fmode : dmode).toString(8)}`;
  return `${lacks}=${octal} denies the server access to its own files unless it is root`;
}

/** access(2): EROFS on a read-only mount, for root too. What root may write in the sandbox, `cli/sandbox.ts` checks. */
function writeWarning({ path, readonly }: ExportOptions): string | undefined {
  if (readonly) return undefined;
  try {
    accessSync(path, constants.W_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EROFS')
      return 'it is mounted read-only, so that every change fails with EROFS: mount it read-write, or say readonly=on';
    if (code === 'EACCES')
      return (
        'this user may not write in it, so that guests can create, rename and remove nothing at its top (EACCES): ' +
        'change its permissions, run as its owner, or say readonly=on'
      );
    return undefined;
  }
}
