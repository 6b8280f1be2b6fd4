import { randomInt } from 'node:crypto';
import { EAGAIN, EIO, ENOENT, Errno } from '#base/errno.ts';
import type { UserGroups } from './process.ts';
import { receive } from './sockets.ts';
import { closeFd, sendMessage, watchFd } from './vhost.ts';

interface Asker {
  readonly resolve: (answer: UserGroups | undefined) => void;
  readonly reject: (error: Errno) => void;
}

interface Question {
  readonly uid: number;
  readonly askers: Asker[];
  /** How often it was sent. */
  sent: number;
  /** What has come of the answer. */
  groups: number[];
}

/** The socket has room for more. */
const sentMax = 64;
const sentAgainMax = 2;
const headWords = 6;
const messageBytesMax = 64 * 1024;
/** A turn of the event loop takes no more. */
const messagesPerTurnMax = 8;

/**
 * The host's user database, asked through `ninepd-groups` at the other end of a socket (native-shims/groups/main.c has the
 * messages). When that has to be started again, what it has not answered is asked once more.
 */
export class UserDatabase {
  readonly #fd: number;
  readonly #say: (text: string) => void;
  readonly #unwatch: () => void;
  readonly #message = new Uint8Array(messageBytesMax);
  readonly #words = new Uint32Array(this.#message.buffer);
  readonly #byUid = new Map<number, Question>();
  readonly #waiting: Question[] = [];
  readonly #sent = new Map<number, Question>();
  /** Another process may have asked before on the same socket, and its answers may still come. */
  #lastId = randomInt(1, 2 ** 32);
  #ended = false;

  /** Takes over the socket; `say` is told what an administrator has to know. */
  constructor(fd: number, say: (text: string) => void) {
    this.#fd = fd;
    this.#say = say;
    this.#unwatch = watchFd(fd, () => this.#readable());
  }

  /** Undefined when the uid is not known. Rejects with EIO when nobody answers. */
  readonly groupsOf = (uid: number): Promise<UserGroups | undefined> => {
    if (this.#ended) return Promise.reject(EIO);
    return new Promise((resolve, reject) => {
      const asker = { resolve, reject };
      const asked = this.#byUid.get(uid);
      if (asked) {
        asked.askers.push(asker);
        return;
      }
      const question = { uid, askers: [asker], sent: 0, groups: [] };
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

  /** What the other side takes no more of waits for its next message. */
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
    // 0 is no question's.
    if (this.#lastId === 0) this.#lastId = 1;
    return this.#lastId;
  }

  #readable(): void {
    for (let i = 0; i < messagesPerTurnMax && !this.#ended; i++) {
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
    for (const group of words.subarray(headWords)) question.groups.push(group);
    if (failed === 0 && question.groups.length < count) return;
    this.#sent.delete(id);
    const { groups } = question;
    if (failed === 0) this.#settle(question, { gid, groups });
    else this.#settle(question, failed === ENOENT.code ? undefined : Errno.of(failed));
  }

  #settle(question: Question, answer: UserGroups | undefined | Errno): void {
    this.#byUid.delete(question.uid);
    for (const { resolve, reject } of question.askers) {
      if (answer instanceof Errno) reject(answer);
      else resolve(answer);
    }
  }

  #restarted([, wasKeeper, pid, status = 0]: Uint32Array): void {
    const signal = status & 0x7f;
    const how = wasKeeper ? 'killed' : signal === 0 ? `exit status ${status >> 8}` : `signal ${signal}`;
    this.#say(`ninepd-groups (process ${pid}) has ended (${how}): another one is started`);
    const unanswered = [...this.#sent.values()];
    this.#sent.clear();
    for (const question of unanswered) {
      if (question.sent < sentAgainMax) this.#waiting.push(question);
      else this.#settle(question, EIO);
    }
  }

  #end(): void {
    this.#say(
      'ninepd-groups has ended and cannot be started from here: no user can attach to an export of ' +
        'security_model=passthrough until ninepd is started again',
    );
    this.close();
  }
}
