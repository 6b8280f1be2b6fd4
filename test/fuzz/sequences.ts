import type { Tree } from '../../src/backend/tree.ts';
import { Errno } from '../../src/base/errno.ts';
import { decodeReply, encodeRequest } from '../../src/protocol/codec.ts';
import { attr as attrKind, type Qid, unpack } from '../../src/protocol/kinds.ts';
import type { Op, RMessage } from '../../src/protocol/operations.ts';
import { showReply } from '../../src/protocol/trace.ts';
import type { Choices } from './choices.ts';
import { readByManual } from './manual-reader.ts';
import { answers, type Wanted } from './model/answers.ts';
import { Conversation } from './model/conversation.ts';
import { Files, type Manner, Refused, Thing } from './model/things.ts';
import { anyRequest, type Request } from './requests.ts';
import { Speaker } from './speaker.ts';

const sessionsMax = 3;
const requestsMax = 300;
/** Lines of what was said that a failure shows. */
const shownMax = 40;

/** The objects of a tree and those of the model, matched when they are first seen. */
class Matches {
  readonly #thingOf = new Map<string, Thing>();
  readonly #pathOf = new Map<Thing, string>();

  check(thing: Thing, { type, version, pathLow, pathHigh }: Qid): string | undefined {
    const path = `${pathHigh}.${pathLow}`;
    const known = this.#pathOf.get(thing);
    if (known !== undefined && known !== path) return `the object has qid path ${path}, and had ${known}`;
    const other = this.#thingOf.get(path);
    // A host may give the number of an object again that is gone.
    if (other && other !== thing && other.nlink > 0) return `two objects have qid path ${path}`;
    this.#thingOf.set(path, thing);
    this.#pathOf.set(thing, path);
    if (version === 0) return 'qid.version is 0';
    const wanted = thing.isDirectory ? 0x80 : thing.type === 0o120000 ? 0x02 : 0;
    return type === wanted ? undefined : `qid.type is ${type}`;
  }
}

interface Attributes {
  readonly qid: Qid;
  readonly [field: string]: unknown;
}

/** One run of several sessions on one tree, each reply compared with the model's. */
class Run {
  readonly #files: Files;
  readonly #speakers: readonly Speaker[];
  readonly #conversations: readonly Conversation[];
  readonly #matches = new Matches();
  readonly #said: string[] = [];

  constructor(tree: Tree, manner: Manner, rootMode: number) {
    const ro = { name: 'ro', tree, readonly: true };
    const rw = { name: 'rw', tree, readonly: false };
    const exports = new Map([
      ['', rw],
      ['/', rw],
      ['ro', ro],
    ]);
    this.#files = new Files(manner, rootMode);
    const world = {
      files: this.#files,
      locks: new Map(),
      exports: new Map([...exports].map(([aname, { readonly }]) => [aname, readonly])),
    };
    const find = { find: (aname: string) => exports.get(aname) };
    // One of them answers everything by the table.
    this.#speakers = Array.from({ length: sessionsMax }, (_, i) => new Speaker(find, i === 1));
    this.#conversations = this.#speakers.map(() => new Conversation(world));
  }

  /** What the model says, which then has done it. */
  #right(session: Conversation, { op, asked }: Request, body: Buffer): Wanted | Refused {
    try {
      if (session.msize === 0 && op !== 'version') return new Refused('EPROTO');
      const read = readByManual(op, body);
      if (read.errno !== undefined) return new Refused(read.errno);
      return answers[op]!(session, asked as never);
    } catch (error) {
      if (error instanceof Refused) return error;
      throw error;
    }
  }

  async say(index: number, request: Request): Promise<void> {
    const { op, asked } = request;
    const conversation = this.#conversations[index]!;
    const frame = encodeRequest(op, op === 'version' ? 0xffff : 1 + (this.#said.length % 1000), asked);
    const reply = decodeReply(op, await this.#speakers[index]!.request(frame));
    const line = `${index} T${op} ${shown(asked)} → ${showReply(op, 0, reply as RMessage<Op>)}`;
    this.#said.push(line.slice(0, 300));
    const wanted = this.#right(conversation, request, frame.subarray(7));
    const wrong = this.#compare(reply, wanted);
    if (wrong !== undefined) throw new Error(`${op}: ${wrong}\n${this.#said.slice(-shownMax).join('\n')}`);
    const fids = this.#speakers[index]!.session.counts().fids;
    if (fids !== conversation.fids.size)
      throw new Error(
        `${op}: fids ${fids} and not ${conversation.fids.size}\n${this.#said.slice(-shownMax).join('\n')}`,
      );
  }

  #compare(reply: RMessage<Op> | Errno, wanted: Wanted | Refused): string | undefined {
    if (wanted instanceof Refused) {
      const got = reply instanceof Errno ? reply.name : 'done';
      return wanted.names.includes(got) ? undefined : `${got} where ${wanted.names} is right`;
    }
    const { refused, ...fields } = wanted;
    if (reply instanceof Errno)
      return reply.name === refused ? undefined : `${reply.name} where it is to be done`;
    const got = reply as Readonly<Record<string, unknown>>;
    for (const [field, value] of Object.entries(fields)) {
      const wrong =
        field === 'all'
          ? (value as (all: unknown) => string | undefined)(got)
          : this.#same(got[field], value);
      if (wrong !== undefined) return `${field}: ${wrong}`;
    }
    return undefined;
  }

  #same(got: unknown, wanted: unknown): string | undefined {
    if (wanted instanceof Thing) {
      return got instanceof Uint8Array
        ? this.#attributes(wanted, got)
        : this.#matches.check(wanted, got as Qid);
    }
    if (Array.isArray(wanted)) {
      const list = got as readonly Qid[];
      if (list.length !== wanted.length) return `${list.length} of them where ${wanted.length} are right`;
      return wanted
        .map((thing: Thing, i) => this.#matches.check(thing, list[i]!))
        .find(wrong => wrong !== undefined);
    }
    if (typeof wanted === 'function') return (wanted as (got: unknown) => string | undefined)(got);
    if (Buffer.isBuffer(wanted)) {
      const { bytes } = got as { bytes: Uint8Array };
      return wanted.equals(bytes)
        ? undefined
        : `${Buffer.from(bytes).toString('hex')} where ${wanted.toString('hex')} is right`;
    }
    return got === wanted ? undefined : `${got} where ${wanted} is right`;
  }

  #attributes(thing: Thing, bytes: Uint8Array): string | undefined {
    const got = unpack(attrKind, bytes) as unknown as Attributes;
    const wrongQid = this.#matches.check(thing, got.qid);
    if (wrongQid !== undefined) return wrongQid;
    const { mode, uid, gid, nlink, rdev, type, atime, mtime } = thing;
    const size = thing.isDirectory ? this.#files.manner.directorySize : thing.size;
    const wanted: Readonly<Record<string, number | undefined>> = {
      ...{ mode: type | mode, uid, gid, nlink, rdev, size },
      ...{ atime_sec: atime, mtime_sec: mtime },
    };
    for (const [field, value] of Object.entries(wanted))
      if (value !== undefined && got[field] !== value)
        return `${field} ${got[field]} where ${value} is right`;
    return undefined;
  }

  async end(): Promise<void> {
    for (const speaker of this.#speakers) await speaker.close();
  }

  next(index: number, choices: Choices): Request {
    return anyRequest(choices, this.#conversations[index]!);
  }

  /** Every session with a version and a root. */
  async begin(users: readonly number[]): Promise<void> {
    for (const index of this.#speakers.keys()) {
      await this.say(index, { op: 'version', asked: { msize: 65_536, version: '9P2000.L' } });
      const attach = {
        fid: 0,
        afid: 0xffff_ffff,
        uname: '',
        aname: '',
        n_uname: users[index % users.length]!,
      };
      await this.say(index, { op: 'attach', asked: attach });
    }
  }
}

function shown(asked: object): string {
  const entries = Object.entries(asked).map(([field, value]) => {
    if (typeof value === 'string') return `${field} ${JSON.stringify(value.slice(0, 20))}`;
    return `${field} ${JSON.stringify(value)?.slice(0, 60)}`;
  });
  return entries.join(' ');
}

/** Runs what the choices say on a tree that is empty, and closes all sessions. */
export async function runSequence(
  choices: Choices,
  tree: Tree,
  manner: Manner,
  rootMode: number,
): Promise<void> {
  const run = new Run(tree, manner, rootMode);
  try {
    await run.begin(manner.users);
    for (let count = 0; count < requestsMax && !choices.done; count++) {
      const index = choices.of([0, 0, 0, 0, 0, 1, 1, 2]);
      await run.say(index, run.next(index, choices));
    }
  } finally {
    await run.end();
  }
}
