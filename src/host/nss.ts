import { Socket } from 'node:net';
import { EIO, Errno } from '#base/errno.ts';

/** A user's primary group, and all groups with it among them. */
export interface UserGroups {
  readonly gid: number;
  readonly groups: readonly number[];
}

interface Question {
  readonly resolve: (answer: UserGroups | undefined) => void;
  readonly reject: (error: Errno) => void;
}

/** The host's user database, asked through `ninepd-groups` at the other end of a socket. */
export class UserDatabase {
  readonly #socket: Socket;
  readonly #questions = new Map<number, Question[]>();
  #rest = '';
  #ended = false;

  /** `fd` is the socket; it does not keep the process alive. */
  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.setEncoding('latin1').on('data', (text: string) => this.#read(text));
    this.#socket.on('error', () => undefined);
    this.#socket.on('close', () => this.#end());
    this.#socket.unref();
  }

  /** Undefined when the uid is not known. Rejects with EIO when nobody answers any more. */
  readonly groupsOf = (uid: number): Promise<UserGroups | undefined> => {
    if (this.#ended) return Promise.reject(EIO);
    return new Promise((resolve, reject) => {
      const question = { resolve, reject };
      const asked = this.#questions.get(uid);
      if (asked) {
        asked.push(question);
        return;
      }
      this.#questions.set(uid, [question]);
      this.#socket.ref();
      this.#socket.write(new Uint8Array(Uint32Array.of(uid).buffer));
    });
  };

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) this.#answer(line.split(' '));
    if (this.#questions.size === 0) this.#socket.unref();
  }

  #answer([uid, first, ...groups]: string[]): void {
    const asked = this.#questions.get(Number(uid)) ?? [];
    this.#questions.delete(Number(uid));
    for (const { resolve, reject } of asked) {
      if (first === undefined) resolve(undefined);
      else if (first === '!') reject(Errno.of(Number(groups[0])));
      else resolve({ gid: Number(first), groups: groups.map(Number) });
    }
  }

  #end(): void {
    this.#ended = true;
    for (const asked of this.#questions.values()) for (const { reject } of asked) reject(EIO);
    this.#questions.clear();
  }
}
