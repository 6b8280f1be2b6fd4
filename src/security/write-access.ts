import { Attr, S_IFREG } from '#base/attr.ts';
import { O_WRONLY } from '#host/constants.ts';
import { type Credentials, serverCreds } from '#host/syscalls.ts';
import type { Target } from './model.ts';

/**
 * The host's attributes of a regular file that the caller may write, or undefined. The kernel says so by letting it be
 * opened; nothing but a regular file is.
 *
 * Before a write, a guest's kernel takes set-id bits and file capabilities away by messages of their own, as the user who
 * writes (fs/inode.c: file_remove_privs). On the host that user may not, but the write that follows does it there, so
 * such a message is granted to whoever may write, and nothing needs to be done.
 */
export async function writableFile({ sys, fd }: Target, creds: Credentials): Promise<Attr | undefined> {
  const attr = new Attr();
  await sys.stat(serverCreds, fd, attr);
  if (attr.type !== S_IFREG) return undefined;
  try {
    await sys.close(await sys.reopen(creds, fd, O_WRONLY));
    return attr;
  } catch {
    return undefined;
  }
}
