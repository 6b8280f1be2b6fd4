import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import {
  Client,
  EACCES,
  type Item,
  type ItemAttributes,
  type MaybePromise,
  ReadOnlyTree,
  Server,
} from '#index.ts';
import type { Qid } from '#protocol/kinds.ts';

interface Object extends Item {
  readonly entries?: Record<string, Object>;
  readonly content?: string;
  readonly fails?: Error;
  readonly mode?: number;
}

const file = (content: string, more = {}): Object => ({ type: 'file', content, ...more });
const directory = (entries: Record<string, Object>): Object => ({ type: 'directory', entries });

class ObjectTree extends ReadOnlyTree<Object> {
  readonly waits: boolean;

  constructor(root: Object, waits: boolean, warn: (text: string) => void) {
    super(root, { warn });
    this.waits = waits;
  }

  #result<T>(value: T): MaybePromise<T> {
    return this.waits ? new Promise(resolve => setTimeout(resolve, 1, value)) : value;
  }

  override list({ entries }: Object) {
    return this.#result(Object.entries(entries!));
  }

  override attributes({ content = '', fails, mode }: Object): MaybePromise<ItemAttributes> {
    if (fails) throw fails;
    const size = Buffer.byteLength(content);
    const mtime = new Date('2001-02-03T04:05:06.789Z');
    return this.#result({ size, mtime, uid: 7, gid: 8, ...(mode === undefined ? {} : { mode }) });
  }

  override bytes({ content }: Object, offset: number, length: number) {
    return this.#result(Buffer.from(content!).subarray(offset, offset + length));
  }

  override target({ content }: Object) {
    return this.#result(content!);
  }
}

const many = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`entry-${i}`, file(`${i}`)]));
const root = directory({
  'a file': file('content'),
  'größe.txt': file('ä', { mode: 0o4755 }),
  link: { type: 'symlink', content: 'ziel/ü' },
  sub: directory({ deep: directory({ leaf: file('leaf') }) }),
  many: directory(many),
  '..': file('escape'),
  'a/b': file('slash'),
  '': file('empty'),
  ['x'.repeat(256)]: file('long'),
  broken: file('', { fails: new TypeError('no such host', { cause: new Error('ENOTFOUND') }) }),
  denied: file('', { fails: EACCES }),
});

const pathOf = ({ qid }: { qid: Qid }) => `${qid.pathHigh} ${qid.pathLow}`;
const bytesOf = (text: string) => Buffer.from(text).toString('latin1');

describe.each([
  ['at once', false],
  ['later', true],
])('a read-only tree whose methods answer %s', (_, waits) => {
  const closed: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of closed.splice(0).reverse()) await close();
  });

  async function served() {
    const dir = mkdtempSync(join(tmpdir(), 'ninepd-read-only-'));
    closed.push(() => rmSync(dir, { recursive: true }));
    const warnings: string[] = [];
    const tree = new ObjectTree(root, waits, text => void warnings.push(text));
    const server = await Server.open({ exports: [{ name: 'objects', tree }] });
    closed.push(() => server.close());
    const path = join(dir, 's');
    await server.listen(`unix://${path}`);
    const client = await Client.connect({ path }, 8192);
    closed.push(() => client.close());
    return { tree, warnings, client, top: await client.attach('objects', 0) };
  }

  it('lists a directory of any size, with the qids of its entries', async () => {
    const { client, top } = await served();
    const fid = await client.walk(top, 'many');
    const { qid } = await client.lopen(fid);
    const entries = await client.readdir(fid);
    expect(entries.map(({ name }) => name)).toEqual(['.', '..', ...Object.keys(many)]);
    expect(pathOf(entries[0]!)).toBe(pathOf({ qid }));
    const one = await client.getattr(await client.walk(top, ['many', 'entry-999']));
    expect(pathOf(entries.at(-1)!)).toBe(pathOf(one));
    expect(new Set(entries.map(pathOf)).size).toBe(1002);
  });

  it('leaves out names that no file can have, and finds none of them', async () => {
    const { client, top } = await served();
    const fid = await client.walk(top);
    await client.lopen(fid);
    const names = (await client.readdir(fid)).map(({ name }) => Buffer.from(name, 'latin1').toString());
    expect(names).toEqual(['.', '..', 'a file', 'größe.txt', 'link', 'sub', 'many', 'broken', 'denied']);
    await expect(client.walk(top, ['a/b'])).rejects.toMatchObject({ name: 'ENOENT' });
    await expect(client.walk(top, ['\xff'])).rejects.toMatchObject({ name: 'ENOENT' });
    // The root is its own parent.
    const above = await client.getattr(await client.walk(top, ['..']));
    expect(above.qid).toEqual((await client.getattr(top)).qid);
  });

  it('gives attributes, defaults, contents and targets', async () => {
    const { client, top } = await served();
    const named = async (name: string) => client.walk(top, [bytesOf(name)]);
    const found = await client.getattr(await named('größe.txt'));
    expect(found).toMatchObject({ mode: 0o104755, uid: 7, gid: 8, nlink: 1, size: 2 });
    expect(found.mtime_sec).toBe(Date.UTC(2001, 1, 3, 4, 5, 6) / 1000);
    expect(found.mtime_nsec).toBe(789_000_000);
    expect(await client.getattr(await named('sub'))).toMatchObject({ mode: 0o040555, nlink: 2 });
    const fid = await named('a file');
    await client.lopen(fid);
    expect((await client.readAll(fid)).toString()).toBe('content');
    expect((await client.read(fid, 5, 100)).toString()).toBe('nt');
    const link = await named('link');
    expect(await client.readlink(link)).toBe(bytesOf('ziel/ü'));
    expect(await client.getattr(link)).toMatchObject({ mode: 0o120777, size: 7 });
    expect((await client.statfs(top)).namelen).toBe(255);
  });

  it('refuses every change with EROFS', async () => {
    const { client, top } = await served();
    const fid = await client.walk(top, 'sub');
    const created = await client.walk(top, 'sub');
    const opened = await client.walk(top, ['a file']);
    for (const change of [
      () => client.mkdir(fid, 'd'),
      () => client.symlink(fid, 's', 't'),
      () => client.lcreate(created, 'f', 2),
      () => client.unlinkat(fid, 'deep', 0x200),
      () => client.renameat(fid, 'deep', top, 'deep'),
      () => client.setattr(fid, { mode: 0o777 }),
      () => client.lopen(opened, 1),
      () => client.setxattr(fid, 'user.a', Buffer.from('b')),
    ])
      await expect(change()).rejects.toMatchObject({ name: 'EROFS' });
    const link = await client.walk(top, 'link');
    await expect(client.lopen(link)).rejects.toMatchObject({ name: 'ELOOP' });
  });

  it('hands an Errno to the client, and makes EIO and one warning of anything else', async () => {
    const { client, top, warnings } = await served();
    await expect(client.walk(top, 'denied')).rejects.toMatchObject({ name: 'EACCES' });
    expect(warnings).toEqual([]);
    for (let i = 0; i < 3; i++)
      await expect(client.walk(top, 'broken')).rejects.toMatchObject({ name: 'EIO' });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(
      /^the tree failed, and a client gets EIO: TypeError: no such host[\s\S]*: Error: ENOTFOUND$/,
    );
    await client.getattr(top);
  });

  it('keeps one node for an object while somebody refers to it, and none after', async () => {
    const { client, top, tree } = await served();
    const [one, two] = await Promise.all([
      client.walk(top, ['sub', 'deep', 'leaf']),
      client.walk(top, ['sub', 'deep', 'leaf']),
    ]);
    expect(tree.root.children.size).toBe(1);
    expect((await client.getattr(one)).qid).toEqual((await client.getattr(two)).qid);
    await client.clunk(one);
    expect(tree.root.children.size).toBe(1);
    await client.clunk(two);
    expect(tree.root.children.size).toBe(0);
  });
});
