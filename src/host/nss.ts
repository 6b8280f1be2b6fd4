import { randomInt } from 'node:crypto';
import { EAGAIN, EIO, ENOENT, Errno } from '#base/errno.ts';
import { GROUPS_HEAD_WORDS, GROUPS_PER_MESSAGE } from './constants.ts';
import { watchFd } from './epoll.ts';
import { closeFd } from './fd.ts';
import { receive, sendMessage } from './message.ts';
import type { UserGroups } from './process.ts';

interface Waiter {
  readonly resolve: (groups: UserGroups | undefined) => void;
  readonly reject: (error: Errno) => void;
}

interface Question {
  readonly uid: number;
  readonly waiters: Waiter[];
  /** How often it was sent. */
  sent: number;
  /** The groups received so far. */
  groups: number[];
}

/** Questions without an answer; fewer than fit into the socket's buffer. */
const sentMax = 64;
/** How often a question is sent. */
const attemptsMax = 2;
/** Messages that one callback reads. */
const messagesPerCallbackMax = 8;

/**
 * The host's user database, queried through `ninepd-groups` by messages over a socket (native-shims/groups/main.c). When it was
 * restarted, unanswered questions are sent again.
 */
export class UserDatabase {
  readonly #fd: number;
  readonly #reportProblem: (text: string) => void;
  readonly #unwatch: () => void;
  readonly #message = new Uint8Array(4 * (GROUPS_HEAD_WORDS + GROUPS_PER_MESSAGE));
  readonly #words = new Uint32Array(this.#message.buffer);
  readonly #byUid = new Map<number, Question>();
  readonly #waiting: Question[] = [];
  readonly #sent = new Map<number, Question>();
  /** Random, since answers to an earlier process with the same socket may still arrive. */
  #lastId = randomInt(1, 2 ** 32);
  #ended = false;

  /** Owns the socket. `reportProblem` gets texts for the administrator. */
  constructor(fd: number, reportProblem: (text: string) => void) {
    this.#fd = fd;
    this.#reportProblem = reportProblem;
    this.#unwatch = watchFd(fd, () => this.#readable());
  }

  /** Resolves to undefined for an unknown uid. Rejects with EIO if there is no answer. */
  readonly groupsOf = (uid: number): Promise<UserGroups | undefined> => {
    if (this.#ended) return Promise.reject(EIO);
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject };
      const known = this.#byUid.get(uid);
      if (known) {
        known.waiters.push(waiter);
        return;
      }
      const question = { uid, waiters: [waiter], sent: 0, groups: [] };
      this.#byUid.set(uid, question);
      this.#waiting.push(question);
      this.#ask();
    });
  };

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#unwatch();
    closeFd(this.#fd);
    for (const question of [...this.#byUid.values()]) this.#settle(question, EIO);
  }

  /** Sends waiting questions. Those that do not fit wait until the next message arrives. */
  #ask(): void {
    while (this.#sent.size < sentMax && this.#waiting.length > 0) {
      const question = this.#waiting[0]!;
      const id = this.#nextId();
      const words = Uint32Array.of(id, question.uid);
      const sent = sendMessage(this.#fd, new Uint8Array(words.buffer));
      if (sent === -EAGAIN.code) return;
      if (sent < 0) {
        this.#end();
        return;
      }
      this.#waiting.shift();
      question.sent++;
      question.groups = [];
      this.#sent.set(id, question);
    }
  }

  #nextId(): number {
    this.#lastId = (this.#lastId + 1) >>> 0;
    // 0 marks a notice.
    if (this.#lastId === 0) this.#lastId = 1;
    return this.#lastId;
  }

  #readable(): void {
    for (let i = 0; i < messagesPerCallbackMax && !this.#ended; i++) {
      const bytes = receive(this.#fd, this.#message);
      if (bytes === -EAGAIN.code) break;
      if (bytes <= 0) {
        this.#end();
        return;
      }
      const words = this.#words.subarray(0, bytes >> 2);
      if (words[0] === 0) this.#restarted(words);
      else this.#answered(words);
    }
    if (!this.#ended) this.#ask();
  }

  #answered(words: Uint32Array): void {
    const [id = 0, uid, failed = 0, gid = 0, count = 0, first = 0] = words;
    const question = this.#sent.get(id);
    if (!question || question.uid !== uid || first !== question.groups.length) return;
    for (const group of words.subarray(GROUPS_HEAD_WORDS)) question.groups.push(group);
    if (failed === 0 && question.groups.length < count) return;
    this.#sent.delete(id);
    const { groups } = question;
    if (failed === 0) this.#settle(question, { gid, groups });
    else this.#settle(question, failed === ENOENT.code ? undefined : Errno.of(failed));
  }

  #settle(question: Question, answer: UserGroups | undefined | Errno): void {
    this.#byUid.delete(question.uid);
    for (const { resolve, reject } of question.waiters) {
      if (answer instanceof Errno) reject(answer);
      else resolve(answer);
    }
  }

  #restarted([, wasSupervisor, pid, status = 0]: Uint32Array): void {
    const signal = status & 0x7f;
    const how = wasSupervisor ? 'killed' : signal === 0 ? `exit status ${status >> 8}` : `signal ${signal}`;
    this.#reportProblem(`ninepd-groups (process ${pid}) has ended (${how}): it is restarted`);
    const unanswered = [...this.#sent.values()];
    this.#sent.clear();
    for (const question of unanswered) {
      if (question.sent < attemptsMax) this.#waiting.push(question);
      else this.#settle(question, EIO);
    }
  }

  #end(): void {
    this.#reportProblem(
      'ninepd-groups has ended and cannot be restarted: no user can attach to an export with ' +
        'security_model=passthrough until ninepd is restarted',
    );
    this.close();
  }
}
