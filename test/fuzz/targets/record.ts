/**
 * Arbitrary records in the xattrs of a `mapped` tree: values of any length, for any type, on any object, changed while a fid
 * refers to it. A client sees what QEMU's rules give, and only regular files of the host are opened for reading or writing.
 */
import {
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeAttributeSync, setAttributeSync } from 'fs-xattr';
import { Errno } from '../../../src/base/errno.ts';
import { nameOf } from '../../../src/base/name.ts';
import { inline } from '../../../src/host/linux.ts';
import { serverCreds } from '../../../src/host/syscalls.ts';
import { decodeReply, encodeRequest } from '../../../src/protocol/codec.ts';
import { parseDirents } from '../../../src/protocol/dirent.ts';
import { attr as attrKind, unpack } from '../../../src/protocol/kinds.ts';
import type { Draft, Op, RMessage } from '../../../src/protocol/operations.ts';
import { mapped } from '../../../src/security/mapped.ts';
import { assert, Choices } from '../choices.ts';
import { FuzzClient } from '../fuzz-client.ts';
import { withDirectory } from '../host-directory.ts';

const S_IFMT = 0o170000;
const types = [0o010000, 0o020000, 0o040000, 0o060000, 0o100000, 0o120000, 0o140000] as const;
const secret = 'this is outside of the export';

type Field = 'uid' | 'gid' | 'mode' | 'rdev';
const fields: readonly Field[] = ['uid', 'gid', 'mode', 'rdev'];
const others = ['security.capability', 'trusted.x', 'system.posix_acl_access', 'user.virtfs', 'x', ''];

/** An object of the host and its record. */
class Planted {
  readonly name: string;
  readonly path: string;
  /** The attributes on the host. */
  readonly host: { readonly mode: number; readonly uid: number; readonly gid: number };
  readonly record = new Map<Field, Buffer>();

  constructor(directory: string, name: string, mode: number) {
    this.name = name;
    this.path = join(directory, name);
    this.host = { mode, uid: process.getuid!(), gid: process.getgid!() };
  }

  /** Only files and directories have user xattrs: xattr(7). */
  get takesRecord(): boolean {
    return [0o040000, 0o100000].includes(this.host.mode & S_IFMT);
  }

  plant(field: Field, value: Buffer | undefined): void {
    if (!this.takesRecord) return;
    if (value) setAttributeSync(this.path, `user.virtfs.${field}`, value);
    else if (this.record.has(field)) removeAttributeSync(this.path, `user.virtfs.${field}`);
    if (value) this.record.set(field, value);
    else this.record.delete(field);
  }

  /** As QEMU: valid only with its exact length; all ones mean unset. */
  #field(field: Field): number | undefined {
    const bytes = this.record.get(field);
    if (bytes?.length !== (field === 'rdev' ? 8 : 4) || bytes.every(byte => byte === 0xff)) return undefined;
    return bytes.readUInt32LE(0);
  }

  /** The attributes that a client must see. */
  get seen(): { mode: number; uid: number; gid: number; rdev: number } {
    const { host } = this;
    const stored = this.#field('mode');
    const hostType = host.mode & S_IFMT;
    const storedType = (stored ?? 0) & S_IFMT;
    const known = types.some(type => type === storedType) && storedType !== 0o040000;
    const type = stored !== undefined && hostType === 0o100000 && known ? storedType : hostType;
    const isDevice = stored !== undefined && (type === 0o020000 || type === 0o060000);
    return {
      mode: type | (stored === undefined ? host.mode & 0o7777 : stored & 0o7777),
      uid: this.#field('uid') ?? host.uid,
      gid: this.#field('gid') ?? host.gid,
      rdev: isDevice ? (this.#field('rdev') ?? 0) : 0,
    };
  }
}

function plantAll(directory: string, outside: string): Planted[] {
  writeFileSync(join(directory, 'file'), 'content', { mode: 0o600 });
  writeFileSync(join(directory, 'target'), outside, { mode: 0o640 });
  writeFileSync(join(directory, 'empty'), '', { mode: 0o600 });
  writeFileSync(join(directory, 'binary'), Buffer.from([0x2e, 0, 0x0a, 0xff]), { mode: 0o600 });
  mkdirSync(join(directory, 'dir'), { mode: 0o700 });
  symlinkSync(outside, join(directory, 'link'));
  const fd = openSync(directory, 'r');
  void inline.mknod(serverCreds, fd, nameOf('fifo'), 0o010600, 0);
  closeSync(fd);
  const modes = { file: 0o100600, target: 0o100640, empty: 0o100600, binary: 0o100600, dir: 0o040700 };
  const planted = Object.entries(modes).map(([name, mode]) => new Planted(directory, name, mode));
  return [...planted, new Planted(directory, 'link', 0o120777), new Planted(directory, 'fifo', 0o010600)];
}

function valueFor(field: Field, choices: Choices): Buffer {
  const right = field === 'rdev' ? 8 : 4;
  const length = choices.rarely(3) ? choices.of([0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 64, 300]) : right;
  const value = choices.rarely(8) ? Buffer.alloc(length, 0xff) : choices.bytes(length);
  if (field !== 'mode' || length !== 4 || choices.rarely(4)) return value;
  value.writeUInt32LE((choices.of(types) | (value.readUInt32LE(0) & 0o7777)) >>> 0);
  return value;
}

/** The client and its fids. */
class Guest {
  readonly #client: FuzzClient;
  readonly #planted: readonly Planted[];

  constructor(client: FuzzClient, planted: readonly Planted[]) {
    this.#client = client;
    this.#planted = planted;
  }

  async ask<O extends Op>(op: O, asked: Draft<O>): Promise<RMessage<O> | Errno> {
    return decodeReply(
      op,
      await this.#client.request(encodeRequest(op, op === 'version' ? 0xffff : 1, asked)),
    );
  }

  async begin(): Promise<void> {
    await this.ask('version', { msize: 65_536, version: '9P2000.L' });
    await this.ask('attach', { fid: 0, afid: 0xffff_ffff, uname: '', aname: '', n_uname: 0 });
  }

  /** Checks an object by a fid that may date from an earlier type. */
  async look(number: number, one: Planted): Promise<void> {
    const reply = await this.ask('getattr', { fid: number, request_mask: 0x3fff });
    if (reply instanceof Errno) throw new Error(`getattr of ${one.name}: ${reply}`);
    const got = unpack(attrKind, reply.attr);
    const { mode, uid, gid, rdev } = one.seen;
    const [a, b] = [got, { mode, uid, gid, rdev }].map(({ mode, uid, gid, rdev }) =>
      JSON.stringify({ mode: mode.toString(8), uid, gid, rdev }),
    );
    assert(a === b, () => `${one.name} is ${a} where ${b} is right (${show(one)})`);
    const qidType = (mode & S_IFMT) === 0o040000 ? 0x80 : (mode & S_IFMT) === 0o120000 ? 2 : 0;
    assert(got.qid.type === qidType, () => `${one.name} has qid type ${got.qid.type} (${show(one)})`);
  }

  /** Opens the object; an open for its content succeeds only for a regular file, on the host and to the client. */
  async open(number: number, one: Planted, flags: number): Promise<void> {
    await this.look(number, one);
    await this.ask('walk', { fid: number, newfid: 90, wname: [] });
    const reply = await this.ask('lopen', { fid: 90, flags });
    const type = one.seen.mode & S_IFMT;
    const opened = !(reply instanceof Errno);
    const may =
      (type === 0o100000 && (flags & 0o200000) === 0) || (type === 0o040000 && (flags & 0o1003) === 0);
    assert(
      opened === may,
      () => `${one.name}: lopen ${flags.toString(8)} was ${opened ? 'done' : reply} (${show(one)})`,
    );
    const read = await this.ask('read', { fid: 90, offset: 0, count: 4096 });
    if (!(read instanceof Errno))
      assert(
        !Buffer.from(read.data.bytes!).toString().includes(secret),
        () => `${one.name}: a guest has read the outside`,
      );
    await this.ask('clunk', { fid: 90 });
  }

  async readlink(number: number, one: Planted): Promise<void> {
    await this.look(number, one);
    const reply = await this.ask('readlink', { fid: number });
    const isLink = (one.seen.mode & S_IFMT) === 0o120000;
    assert(isLink || reply instanceof Errno, () => `${one.name}: readlink was done (${show(one)})`);
  }

  async list(): Promise<void> {
    await this.ask('walk', { fid: 0, newfid: 91, wname: [] });
    await this.ask('lopen', { fid: 91, flags: 0 });
    const reply = await this.ask('readdir', { fid: 91, offset: { low: 0, high: 0 }, count: 60_000 });
    await this.ask('clunk', { fid: 91 });
    if (reply instanceof Errno) throw new Error(`readdir: ${reply}`);
    const entries = parseDirents(reply.data.bytes!);
    for (const one of this.#planted) {
      const entry = entries.find(({ name }) => name === one.name);
      const wanted = (one.seen.mode & S_IFMT) >> 12;
      assert(
        entry?.type === wanted,
        () => `${one.name} is listed as ${entry?.type}, not ${wanted} (${show(one)})`,
      );
    }
  }
}

function show(one: Planted): string {
  return [...one.record].map(([field, value]) => `${field}=${value.toString('hex')}`).join(' ');
}

async function step(choices: Choices, guest: Guest, planted: readonly Planted[]): Promise<void> {
  const at = choices.below(planted.length);
  const one = planted[at]!;
  const number = 1 + at;
  const what = choices.below(12);
  if (what < 5) {
    const field = choices.of(fields);
    one.plant(field, choices.rarely(8) ? undefined : valueFor(field, choices));
  } else if (what === 5 && one.takesRecord) {
    setAttributeSync(one.path, `user.virtfs.${choices.of(others)}`, choices.bytes(choices.below(40)));
    await guest.ask('xattrwalk', {
      fid: number,
      newfid: 92,
      name: choices.of(['', ...others, 'user.virtfs.mode']),
    });
    await guest.ask('clunk', { fid: 92 });
  } else if (what === 6) await guest.open(number, one, choices.of([0, 1, 2, 0o1001, 0o200000, 0o2001]));
  else if (what === 7) await guest.readlink(number, one);
  else if (what === 8) await guest.list();
  else if (what === 9) {
    // Walk again: the old fid may have another type.
    await guest.ask('walk', { fid: 0, newfid: 93, wname: [one.name] });
    await guest.look(93, one);
    await guest.ask('clunk', { fid: 93 });
  } else await guest.look(number, one);
}

export async function fuzz(data: Buffer): Promise<void> {
  const choices = new Choices(data);
  const complaints: string[] = [];
  const model = mapped({ fmode: 0o600, dmode: 0o700 }, text => void complaints.push(text));
  const outside = join(tmpdir(), `ninepd-fuzz-outside-${process.pid}`);
  writeFileSync(outside, secret);
  await withDirectory(model, async (tree, directory) => {
    const planted = plantAll(directory, outside);
    linkSync(planted[0]!.path, join(directory, 'second-name'));
    const exported = { name: 'x', tree, readonly: false };
    const client = new FuzzClient({ find: () => exported });
    const guest = new Guest(client, planted);
    try {
      await guest.begin();
      for (const [i, { name }] of planted.entries())
        await guest.ask('walk', { fid: 0, newfid: 1 + i, wname: [name] });
      while (!choices.done) await step(choices, guest, planted);
      await guest.list();
    } finally {
      await client.close();
    }
  });
  const kept = readFileSync(outside, 'utf8');
  rmSync(outside);
  assert(kept === secret, () => 'a guest has written outside');
}
