import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { type Logger, silent } from '#base/log.ts';
import { dupCloexec } from '#host/fd.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import type { ServerShare } from '#quota/server-share.ts';
import { mapped } from '#security/mapped.ts';
import { Session } from '#session/session.ts';
import { fdOf } from '#transport/handle.ts';
import { VhostUserListener } from '#transport/vhost-user/listener.ts';

/** A directory served as a virtio-9p device, in this process. */
export interface Served {
  /** The directory. */
  readonly directory: string;
  /** The socket. */
  readonly path: string;
  readonly face: VhostUserListener;
  /** All sessions so far, in order. */
  readonly sessions: Session[];
  /** Warnings and errors. */
  readonly complaints: string[];
  close(): Promise<void>;
}

export interface ServedOptions {
  readonly tag?: string;
  /** Busy polling in microseconds. */
  readonly busyPoll?: number;
  /** Share of these and other sessions. */
  readonly share?: ServerShare;
  /** Wraps the directory's tree. */
  readonly dressed?: (tree: Tree) => Tree;
}

export async function serveDirectory(options: ServedOptions = {}): Promise<Served> {
  const { tag = 'share', busyPoll = 0, share, dressed = tree => tree } = options;
  const directory = mkdtempSync(join(tmpdir(), 'ninepd-vhost-'));
  chmodSync(directory, 0o777);
  const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
  const tree = await LocalTree.open(directory, { descriptors: new FdBudget(64), model });
  const served = dressed(tree);
  const exports = { find: () => ({ name: 'share', tree: served, readonly: false }) };
  const complaints: string[] = [];
  const complain = (text: string) => void complaints.push(text);
  const log: Logger = { ...silent, warn: complain, error: complain };
  const sessions: Session[] = [];
  const path = `${directory}.sock`;
  const face = new VhostUserListener(
    { path, tag, busyPoll },
    transport => {
      const session = new Session({ exports, transport, log, ...(share && { share }) });
      sessions.push(session);
      return session;
    },
    log,
  );
  const server = createServer({ pauseOnConnect: true }, socket => {
    const fd = fdOf(socket);
    face.accept({ fd: dupCloexec(fd) }, { label: 'unix test' });
    socket.destroy();
  });
  await new Promise<void>(resolve => server.listen(path, resolve));
  const close = async () => {
    server.close();
    await face.close();
    tree.close();
    rmSync(directory, { recursive: true });
  };
  return { directory, path, face, sessions, complaints, close };
}
