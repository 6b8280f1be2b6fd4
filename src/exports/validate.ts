import { accessSync, closeSync, constants, existsSync, opendirSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { EACCES, ENODATA, EOPNOTSUPP, EROFS, Errno } from '#base/errno.ts';
import { O_DIRECTORY, O_PATH } from '#host/constants.ts';
import { inline } from '#host/linux.ts';
import { effectiveCapabilities } from '#host/process.ts';
import { serverCreds } from '#host/syscalls.ts';
import { modeXattr } from '#security/mapped-record.ts';
import { type ModelEntry, modelsWhere } from '#security/models.ts';

/** Probe xattr in the namespace of the records: if it can be set, records can be set. */
const probeXattr = 'user.virtfs.probe';

/** Problems that keep the directory from being served with a model, each with what to do. */
export async function checkedRoot(path: string, model: ModelEntry, readonly: boolean): Promise<string[]> {
  const unusable = directoryProblem(path);
  const problems = unusable === undefined ? [] : [unusable];
  problems.push(...capabilityProblems(model));
  if (model.needs.userXattrs && unusable === undefined)
    problems.push(...(await xattrProblems(path, model, readonly)));
  return problems;
}

/** How many entries are looked at for records. */
const probedEntries = 100;

/** Whether `mapped` has kept records in a directory: in itself or in one of its first entries. False if it cannot be read. */
export async function hasRecords(path: string): Promise<boolean> {
  try {
    if (await hasRecord(path)) return true;
    const directory = opendirSync(path);
    try {
      for (let i = 0; i < probedEntries; i++) {
        const entry = directory.readSync();
        if (!entry) return false;
        if (await hasRecord(join(path, entry.name))) return true;
      }
      return false;
    } finally {
      directory.closeSync();
    }
  } catch {
    return false;
  }
}

async function hasRecord(path: string): Promise<boolean> {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    return (await inline.getxattr(serverCreds, fd, modeXattr, new Uint8Array(0))) >= 0;
  } finally {
    closeSync(fd);
  }
}

/** Problems of /proc: the server reopens descriptors through /proc/self/fd. */
export function procFaults(): string[] {
  return existsSync('/proc/self/fd') ? [] : ['/proc is not mounted: mount -t proc proc /proc'];
}

function directoryProblem(path: string): string | undefined {
  try {
    if (!statSync(path).isDirectory()) return 'it is not a directory: name the directory to serve';
    accessSync(path, constants.R_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      return `the directory does not exist: make it (mkdir -p ${path}) or correct the path`;
    if (code === 'ENOTDIR') return 'a part of the path is not a directory: correct the path';
    if (code === 'EACCES')
      return 'this user may not read the directory: change its permissions, or run as another user';
    return `the directory cannot be used: ${(error as Error).message}`;
  }
}

function capabilityProblems({ name, needs }: ModelEntry): string[] {
  if (needs.capabilities.length === 0) return [];
  const have = effectiveCapabilities();
  const missing = needs.capabilities.filter(one => !have.has(one));
  if (missing.length === 0) return [];
  const others = modelsWhere(one => one.needs.capabilities.length === 0);
  return [
    `security_model=${name} needs privileges that this process lacks (${missing.join(', ')}): ` +
      `run as root, or use security_model=${others}`,
  ];
}

async function xattrProblems(path: string, { name }: ModelEntry, readonly: boolean): Promise<string[]> {
  let fd: number;
  try {
    fd = openSync(path, O_PATH | O_DIRECTORY);
  } catch (error) {
    return [`the directory cannot be opened: ${(error as Error).message}`];
  }
  try {
    const failed = readonly ? await readProbe(fd) : await writeProbe(fd);
    return failed === undefined ? [] : [xattrProblem(name, failed)];
  } finally {
    closeSync(fd);
  }
}

function xattrProblem(model: string, failed: Errno): string {
  if (failed === EOPNOTSUPP) {
    const others = modelsWhere(one => !one.needs.userXattrs);
    return (
      `its file system has no user extended attributes, which security_model=${model} keeps owners and modes in: ` +
      `use ext4, xfs or btrfs (tmpfs has them from Linux 6.6 on), or another model (${others})`
    );
  }
  return `extended attributes cannot be set in it, which security_model=${model} needs: ${failed}`;
}

/** Whether xattrs can exist, which is all that reading needs. */
async function readProbe(fd: number): Promise<Errno | undefined> {
  const found = await inline.getxattr(serverCreds, fd, probeXattr, new Uint8Array(0));
  const failed = found < 0 ? Errno.of(-found) : undefined;
  return failed === ENODATA || failed === EACCES ? undefined : failed;
}

/** Sets and removes an xattr: on an unnamed file (O_TMPFILE) if one can be created, otherwise on the directory. */
async function writeProbe(dirfd: number): Promise<Errno | undefined> {
  let fd = dirfd;
  try {
    fd = await inline.createUnnamed(serverCreds, dirfd, 0o600);
  } catch {
    // No O_TMPFILE, or no write permission in the root, though its subdirectories may give it.
  }
  try {
    await inline.setxattr(serverCreds, fd, probeXattr, new Uint8Array([1]), 0);
    await inline.removexattr(serverCreds, fd, probeXattr);
    return undefined;
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    return error === EACCES || error === EROFS ? readProbe(dirfd) : error;
  } finally {
    if (fd !== dirfd) await inline.close(fd);
  }
}
