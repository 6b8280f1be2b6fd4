import { chmodSync, chownSync, lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { silent } from '#base/log.ts';
import { type ExportOptions, Server } from '#index.ts';
import { SET, TestClient } from '../conformance/test-client.ts';

// A passthrough export in a fresh directory for each test, and clients of it.

let dir: string;
/** The exported directory. */
export let files: string;
let server: Server | undefined;
/** Warnings of the server. */
export let log: string[];
const clients: TestClient[] = [];

beforeEach(() => {
  process.umask(0);
  dir = mkdtempSync(join(tmpdir(), 'ninepd-check-'));
  chmodSync(dir, 0o755);
  files = join(dir, 'files');
  mkdirSync(files, { mode: 0o777 });
  log = [];
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map(one => one.close()));
  await server?.close();
  server = undefined;
  rmSync(dir, { recursive: true });
});

export const at = (...names: string[]) => join(files, ...names);
const path = () => join(dir, 's');

/** The host knows uid 1000, in groups 1000 and 2000. */
export async function serve(options: Partial<ExportOptions>): Promise<void> {
  server = await Server.open({
    exports: [{ ...options, path: files, name: 'x', securityModel: 'passthrough' }],
    groupsOf: uid => (uid === 1000 ? { gid: 1000, groups: [1000, 2000] } : undefined),
    log: { ...silent, warn: text => void log.push(text) },
  });
  await server.listen(`unix://${path()}`);
}

export async function as(n_uname: number): Promise<TestClient> {
  const client = await TestClient.begin({ path: path() }, { n_uname });
  return closing(client);
}

/** Closes the client when the test is done. */
export function closing(client: TestClient): TestClient {
  clients.push(client);
  return client;
}

/** Owner, group and mode, as `1000:2000 644`. */
export function what(...names: string[]): string {
  const { uid, gid, mode } = lstatSync(at(...names));
  return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
}

export function folder(name: string, uid: number, gid: number, mode: number): void {
  mkdirSync(at(name));
  chownSync(at(name), uid, gid);
  chmodSync(at(name), mode);
}

export function file(name: string, uid: number, gid: number, mode: number): void {
  writeFileSync(at(name), 'text');
  chownSync(at(name), uid, gid);
  chmodSync(at(name), mode);
}

export const change = (c: TestClient, fid: number, fields: { uid?: number; gid?: number; mode?: number }) => {
  const { uid, gid, mode } = fields;
  const valid =
    (uid === undefined ? 0 : SET.UID) |
    (gid === undefined ? 0 : SET.GID) |
    (mode === undefined ? 0 : SET.MODE);
  return c.call('setattr', { ...c.noChange, ...fields, fid, valid });
};

/** Every message that creates, and so carries a gid. Each creates `name` with permission bits 02755 where it has some. */
export const creating: [
  string,
  (c: TestClient, dfid: number, name: string, gid: number) => Promise<unknown>,
][] = [
  ['Tlcreate', (c, dfid, name, gid) => c.create(dfid, name, { gid, mode: 0o2755 })],
  ['Tmkdir', (c, dfid, name, gid) => c.call('mkdir', { dfid, name, gid, mode: 0o2755 })],
  ['Tmknod of a FIFO', (c, dfid, name, gid) => c.mknod(dfid, name, 0o012755, 0, 0, gid)],
  ['Tmknod of a file', (c, dfid, name, gid) => c.mknod(dfid, name, 0o102755, 0, 0, gid)],
  ['Tsymlink', (c, dfid, name, gid) => c.call('symlink', { dfid, name, symtgt: 'x', gid })],
];

/** An ACL of the three classes. */
export function acl(user: number, group: number, others: number): Buffer {
  const bytes = Buffer.alloc(4 + 8 * 3);
  bytes.writeUInt32LE(2);
  for (const [i, [tag, perm]] of [
    [1, user],
    [4, group],
    [32, others],
  ].entries()) {
    bytes.writeUInt16LE(tag!, 4 + 8 * i);
    bytes.writeUInt16LE(perm!, 6 + 8 * i);
    bytes.writeUInt32LE(0xffff_ffff, 8 + 8 * i);
  }
  return bytes;
}
