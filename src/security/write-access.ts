import { Attr, S_IFREG } from '#base/attr.ts';
import { O_WRONLY } from '#host/constants.ts';
import { type Credentials, serverCreds } from '#host/syscalls.ts';
import type { Target } from './model.ts';

/**
 * The host's attributes of a regular file that the caller may write; otherwise undefined. Checks by opening the file; no other
 * type is opened.
 *
 * Before a write, a guest's kernel clears set-id bits and file capabilities by separate messages, with the writer's
 * credentials (file_remove_privs of fs/inode.c). The host refuses them to that user, but clears both at the write that
 * follows. So such a message succeeds without effect if the user may write.
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
