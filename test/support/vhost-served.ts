import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplicate } from '../../src/host/vhost.ts';
import { type Logger, silent } from '../../src/log.ts';
import { mapped } from '../../src/security/mapped.ts';
import { Session } from '../../src/session/session.ts';
import type { Shares } from '../../src/session/shares.ts';
import { VhostUserFace } from '../../src/transport/vhost-user/face.ts';
import { Descriptors } from '../../src/tree/descriptors.ts';
import { LocalTree } from '../../src/tree/local-tree.ts';
import type { Tree } from '../../src/tree/tree.ts';

/** A directory served as a virtio-9p device, in this process. */
export interface Served {
  /** The directory. */
  readonly directory: string;
  /** The socket. */
  readonly path: string;
  readonly face: VhostUserFace;
  /** Every session that was opened, the last one last. */
  readonly sessions: Session[];
  /** Warnings and errors. */
  readonly complaints: string[];
  close(): Promise<void>;
}

export interface ServedOptions {
  readonly tag?: string;
  /** Microseconds. */
  readonly busyPoll?: number;
  /** Of these and other sessions. */
  readonly shares?: Shares;
  /** The tree that is served, made of that of the directory. */
  readonly dressed?: (tree: Tree) => Tree;
}

export async function serveDirectory(options: ServedOptions = {}): Promise<Served> {
  const { tag = 'share', busyPoll = 0, shares, dressed = tree => tree } = options;
  const directory = mkdtempSync(join(tmpdir(), 'ninepd-vhost-'));
  chmodSync(directory, 0o777);
  const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
  const tree = await LocalTree.open(directory, { descriptors: new Descriptors(64), model });
  const served = dressed(tree);
  const exports = { find: () => ({ name: 'share', tree: served, readonly: false }) };
  const complaints: string[] = [];
  const complain = (text: string) => void complaints.push(text);
  const log: Logger = { ...silent, warn: complain, error: complain };
  const sessions: Session[] = [];
  const path = `${directory}.sock`;
  const face = new VhostUserFace(
    { path, tag, busyPoll },
    line => {
      const session = new Session({ exports, line, log, ...(shares && { shares }) });
      sessions.push(session);
      return session;
    },
    log,
  );
  const server = createServer({ pauseOnConnect: true }, socket => {
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    face.accept({ fd: duplicate(fd) }, { label: 'unix test' });
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
