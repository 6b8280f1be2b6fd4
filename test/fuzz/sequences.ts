import type { Tree } from '../../src/backend/tree.ts';
import { Errno, ESTALE } from '../../src/base/errno.ts';
import { encodeRequest } from '../../src/protocol/codec.ts';
import { attr as attrKind, type Qid, unpack } from '../../src/protocol/kinds.ts';
import type { Draft, Op, RMessage } from '../../src/protocol/operations.ts';
import { showReply } from '../../src/protocol/trace.ts';
import { audit } from './audit.ts';
import type { Choices } from './choices.ts';
import { FuzzClient } from './fuzz-client.ts';
import { readByManual } from './manual-reader.ts';
import { Files, ModelNode, type ModelOptions, Refused } from './model/nodes.ts';
import { answers, type Wanted } from './model/replies.ts';
import { ModelSession, type World } from './model/session.ts';
import { anyRequest, type Request } from './requests.ts';

/** Weights of the sessions. */
const weightedSessions = [0, 0, 0, 0, 0, 1, 1, 2];
export const sessionsMax = 3;
/** Limit of a message before Tversion. */
const unversionedBytesMax = 4096;
const requestsMax = 300;
/** Number of trace lines shown in a failure. */
const shownMax = 40;

/** Sends requests of one session, one at a time. */
export interface RequestSender {
  call<O extends Op>(op: O, asked: Draft<O>, tag: number): Promise<RMessage<O> | Errno>;
  /** Number of the session's fids on the server, where that is visible. */
  readonly fids: number | undefined;
  close(): Promise<void>;
}

/** Maps qid.path to objects of the model, from their first appearance. */
class Matches {
  readonly #thingOf = new Map<string, ModelNode>();
  readonly #pathOf = new Map<ModelNode, string>();

  check(node: ModelNode, { type, version, pathLow, pathHigh }: Qid): string | undefined {
    const path = `${pathHigh}.${pathLow}`;
    const known = this.#pathOf.get(node);
    if (known !== undefined && known !== path) return `the object has qid path ${path}, and had ${known}`;
    const other = this.#thingOf.get(path);
    // A host may reuse the number of a removed object.
    if (other && other !== node && other.nlink > 0) return `two objects have qid path ${path}`;
    this.#thingOf.set(path, node);
    this.#pathOf.set(node, path);
    if (version === 0) return 'qid.version is 0';
    const wanted = node.isDirectory ? 0x80 : node.type === 0o120000 ? 0x02 : 0;
    return type === wanted ? undefined : `qid.type is ${type}`;
  }
}

interface Attributes {
  readonly qid: Qid;
  readonly [field: string]: unknown;
}

/** A request and its session. */
export interface Step {
  readonly session: number;
  readonly request: Request;
}

/** Runs requests of several sessions on one tree and compares each reply with the model. */
export class Sequence {
  readonly #files: Files;
  readonly #senders: readonly RequestSender[];
  readonly #modelSessions: readonly ModelSession[];
  readonly #matches = new Matches();
  readonly #said: string[] = [];

  /** `exports` maps anames to whether they are read-only; all export the root of `files`. */
  constructor(senders: readonly RequestSender[], files: Files, exports: ReadonlyMap<string, boolean>) {
    this.#files = files;
    this.#senders = senders;
    const world: World = { files, locks: new Map(), exports };
    this.#modelSessions = senders.map(() => new ModelSession(world));
  }

  /** Runs a request in the model; returns the expected reply. */
  #right(session: ModelSession, { op, asked }: Request, body: Buffer): Wanted | Refused {
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

  async say({ session, request }: Step): Promise<void> {
    const { op, asked } = request;
    const modelSession = this.#modelSessions[session]!;
    const sender = this.#senders[session]!;
    const tag = op === 'version' ? 0xffff : 1 + (this.#said.length % 1000);
    const frame = encodeRequest(op, tag, asked);
    const line = `${session} T${op} ${shown(asked)}`;
    const reply = await sender
      .call(op, asked, tag)
      .catch(error => this.#fail(`${op}: ${error.message}`, line));
    this.#said.push(`${line} → ${showReply(op, 0, reply as RMessage<Op>)}`.slice(0, 300));
    const wanted =
      reply === ESTALE && this.#mayBeLost(modelSession, request)
        ? reply
        : this.#right(modelSession, request, frame.subarray(7));
    const wrong = this.#compare(reply, wanted) ?? this.#wrongFids(sender, modelSession);
    if (wrong !== undefined) this.#fail(`${op}: ${wrong}`);
  }

  #fail(what: string, ...more: readonly string[]): never {
    throw new Error([what, ...this.#said.slice(-shownMax), ...more].join('\n'));
  }

  /** Whether a request may fail with ESTALE because another server removed the object's name. */
  #mayBeLost(modelSession: ModelSession, { op, asked }: Request): boolean {
    const numbers = Object.entries(asked).filter(([field]) => /fid$/.test(field) && field !== 'newfid');
    const found = numbers.flatMap(([, number]) => modelSession.fids.get(number as number) ?? []);
    const lost = found.some(fid => modelSession.mayBeLost(fid));
    if (lost && (op === 'clunk' || op === 'remove')) modelSession.take((asked as { fid: number }).fid);
    return lost;
  }

  #wrongFids({ fids }: RequestSender, modelSession: ModelSession): string | undefined {
    const right = modelSession.fids.size;
    return fids === undefined || fids === right ? undefined : `${fids} fids where ${right} are right`;
  }

  #compare(reply: RMessage<Op> | Errno, wanted: Wanted | Refused | Errno): string | undefined {
    if (wanted instanceof Errno) return undefined;
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
    if (wanted instanceof ModelNode) {
      return got instanceof Uint8Array
        ? this.#attributes(wanted, got)
        : this.#matches.check(wanted, got as Qid);
    }
    if (Array.isArray(wanted)) {
      const list = got as readonly Qid[];
      if (list.length !== wanted.length) return `${list.length} of them where ${wanted.length} are right`;
      return wanted
        .map((node: ModelNode, i) => this.#matches.check(node, list[i]!))
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

  #attributes(node: ModelNode, bytes: Uint8Array): string | undefined {
    const got = unpack(attrKind, bytes) as unknown as Attributes;
    const wrongQid = this.#matches.check(node, got.qid);
    if (wrongQid !== undefined) return wrongQid;
    const { mode, uid, gid, rdev, type, atime, mtime } = node;
    const { directorySize, directoryLinks } = this.#files.modelOptions;
    const size = node.isDirectory ? directorySize : node.size;
    const one = node.isDirectory && directoryLinks === 'one';
    const nlink = one ? Math.min(node.nlink, 1) : node.nlink;
    const wanted: Readonly<Record<string, number | undefined>> = {
      ...{ mode: type | mode, uid, gid, nlink, rdev, size },
      ...{ atime_sec: atime, mtime_sec: mtime?.sec, mtime_nsec: mtime?.nsec },
    };
    for (const [field, value] of Object.entries(wanted))
      if (value !== undefined && got[field] !== value)
        return `${field} ${got[field]} where ${value} is right`;
    node.mtime ??= { sec: got.mtime_sec as number, nsec: got.mtime_nsec as number };
    return undefined;
  }

  async end(): Promise<void> {
    for (const sender of this.#senders) await sender.close();
  }

  /** Whether the request fits into a message. */
  fits({ session, request: { op, asked } }: Step): boolean {
    const { msize } = this.#modelSessions[session]!;
    return encodeRequest(op, 0, asked).length <= (msize || unversionedBytesMax);
  }

  /** Compares the whole tree with the model, through a session of its own. */
  async auditBy(session: number): Promise<void> {
    for (const request of audit(this.#modelSessions[session]!)) await this.say({ session, request });
  }

  next(choices: Choices): Step {
    const session = choices.of(weightedSessions);
    return { session, request: anyRequest(choices, this.#modelSessions[session]!) };
  }

  /** Tversion and Tattach for sessions of these users. */
  static beginnings(users: readonly number[]): Step[] {
    return users.flatMap((n_uname, session) => {
      const attach = { fid: 0, afid: 0xffff_ffff, uname: '', aname: '', n_uname };
      return [
        { session, request: { op: 'version', asked: { msize: 65_536, version: '9P2000.L' } } },
        { session, request: { op: 'attach', asked: attach } },
      ] as const;
    });
  }
}

function shown(asked: object): string {
  const entries = Object.entries(asked).map(([field, value]) => {
    if (typeof value === 'string') return `${field} ${JSON.stringify(value.slice(0, 20))}`;
    return `${field} ${JSON.stringify(value)?.slice(0, 60)}`;
  });
  return entries.join(' ');
}

/** The users of the random sessions. */
export function usersOf({ users }: ModelOptions): number[] {
  return Array.from({ length: sessionsMax }, (_, i) => users[i % users.length]!);
}

/** Runs the chosen requests on an empty tree and closes all sessions. */
export async function runSequence(
  choices: Choices,
  tree: Tree,
  modelOptions: ModelOptions,
  rootMode: number,
): Promise<void> {
  const [rw, ro] = [false, true].map(readonly => ({ name: 'x', tree, readonly }));
  const exports = new Map([
    ['', rw!],
    ['/', rw!],
    ['ro', ro!],
  ]);
  const find = { find: (aname: string) => exports.get(aname) };
  // One of the sessions uses only the generic path.
  const senders = Array.from({ length: sessionsMax }, (_, i) => new FuzzClient(find, i === 1));
  const readonly = new Map([...exports].map(([aname, exported]) => [aname, exported.readonly]));
  const sequence = new Sequence(senders, new Files(modelOptions, rootMode), readonly);
  try {
    for (const step of Sequence.beginnings(usersOf(modelOptions))) await sequence.say(step);
    for (let count = 0; count < requestsMax && !choices.done; count++)
      await sequence.say(sequence.next(choices));
  } finally {
    await sequence.end();
  }
}
