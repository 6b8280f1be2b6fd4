import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { E2BIG, EACCES, EIO } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { receiveMessage, sendMessage } from '#host/message.ts';
import { UserDatabase } from '#host/nss.ts';
import { socketPair } from '#host/sockets.ts';
import { Ninepd } from '../support/ninepd.ts';
import { childrenOf, type Process, processOf } from '../support/processes.ts';

const rdonly = 0;
const waitMs = { timeout: 60_000 };
const firstGid = 100_000;

/** Users by their number of groups, including the primary gid 70000. */
const users = { 1: 70_001, 1000: 70_002, 65536: 70_003, 65537: 70_004 } as const;

let top: string;
let files: string;
let database: { passwd: string; group: string };
let server: Ninepd;

beforeAll(() => {
  top = mkdtempSync(join(tmpdir(), 'ninepd-groups-'));
  chmodSync(top, 0o755);
  files = join(top, 'files');
  mkdirSync(files);
  database = { passwd: join(top, 'passwd'), group: join(top, 'group') };
  const counts = Object.keys(users).map(Number);
  const passwd = counts.map(
    count => `u${count}:x:${users[count as keyof typeof users]}:70000::/:/bin/false\n`,
  );
  writeFileSync(database.passwd, `root:x:0:0::/:/bin/sh\n${passwd.join('')}`);
  const lines = Array.from({ length: 65_536 }, (_, i) => {
    const members = counts.filter(count => i < count - 1).map(count => `u${count}`);
    return `g${i}:x:${firstGid + i}:${members.join(',')}\n`;
  });
  writeFileSync(database.group, `root:x:0:\n${lines.join('')}`);
  for (const i of [0, 64, 998, 999, 65_534, 65_535]) {
    const name = join(files, `of-${i}`);
    writeFileSync(name, 'content', { mode: 0o640 });
    chownSync(name, 0, firstGid + i);
  }
});
afterEach(async () => {
  await server?.stop();
});
afterAll(() => rmSync(top, { recursive: true }));

const start = async (args: readonly string[] = [], userDatabase = database) => {
  const exports = [
    { path: files, name: 'files', securityModel: 'passthrough' as const, settings: ['check=host'] },
  ];
  server = await Ninepd.start({ exports, args: [...args], userDatabase });
};
const connect = () => Client.connect({ port: server.port });

/** The outcome of an attach: true, or the error. */
const attaches = async (uid: number): Promise<unknown> => {
  const client = await connect();
  const outcome = await client.attach('files', uid).then(
    () => true,
    error => error,
  );
  await client.close();
  return outcome;
};

describe.each([
  ['in the sandbox', []],
  ['without a sandbox', ['--sandbox', 'off']],
])('passthrough, %s', (_how, args) => {
  it('gives a user all groups of the host, up to as many as Linux knows', async () => {
    await start(args);
    const client = await connect();
    const opens = async (count: keyof typeof users) => {
      const root = await client.attach('files', users[count]);
      const outcomes: unknown[] = [];
      for (const i of [0, 64, 998, 999, 65_534, 65_535]) {
        const fid = await client.walk(root, `of-${i}`);
        const opened = client.lopen(fid, rdonly).then(
          () => true,
          error => error,
        );
        outcomes.push(await opened);
      }
      return outcomes;
    };
    const [yes, no] = [true, EACCES];
    expect(await opens(1)).toEqual([no, no, no, no, no, no]);
    expect(await opens(1000)).toEqual([yes, yes, yes, no, no, no]);
    expect(await opens(65536)).toEqual([yes, yes, yes, yes, yes, no]);
    await client.close();
  });

  it('lets a user in more groups attach not at all, and says so', async () => {
    await start(args);
    expect(await attaches(users[65537])).toBe(E2BIG);
    expect(await attaches(users[65537])).toBe(E2BIG);
    expect(server.log().match(/the groups of uid 70004 are more than the 65,536/g)).toHaveLength(1);
    expect(await attaches(users[65536])).toBe(true);
  });
});

describe('ninepd-groups', () => {
  const named = (all: Process[]) => all.filter(({ name }) => name === 'ninepd-groups');
  const supervisors = () => named(childrenOf(server.pid));
  /** Those that answer, with those that have become one's supervisor. */
  const all = () => {
    const found = supervisors();
    for (const one of found) found.push(...named(childrenOf(one.pid)));
    return found;
  };
  const worker = (supervisor: Process) =>
    vi.waitFor(() => {
      const [found] = named(childrenOf(supervisor.pid));
      expect(found).toBeDefined();
      return found!;
    }, waitMs);
  const lives = ({ pid, name }: Process) => {
    const now = processOf(pid);
    return now?.name === name && now.state !== 'Z';
  };

  const withinMoment = (outcome: Promise<unknown>) =>
    Promise.race([outcome, new Promise(resolve => setTimeout(() => resolve('nothing'), 300))]);

  it('is started again whenever it ends, with a line in the log each time', async () => {
    await start();
    for (let i = 0; i < 4; i++) {
      expect(await attaches(users[1000])).toBe(true);
      const { pid } = all().at(-1)!;
      process.kill(pid, 'SIGKILL');
      expect(await attaches(users[1])).toBe(true);
      expect(server.log()).toContain(`ninepd-groups (process ${pid}) has ended (signal 9): it is restarted`);
    }
  });

  it('keeps no working directory of the server in use', async () => {
    await start();
    expect(await attaches(users[1])).toBe(true);
    const processes = all();
    expect(processes.length).toBeGreaterThan(1);
    expect(processes.map(({ pid }) => readlinkSync(`/proc/${pid}/cwd`))).toEqual(processes.map(() => '/'));
  });

  it('takes the place of the process that starts it again', async () => {
    await start(['--workers', '2']);
    const [supervisor] = supervisors();
    const successor = await worker(supervisor!);
    process.kill(supervisor!.pid, 'SIGKILL');
    const next = await worker(successor);
    process.kill(next.pid, 'SIGKILL');
    for (let i = 0; i < 4; i++) expect(await attaches(users[1])).toBe(true);
    const said = () => server.log();
    await vi.waitFor(
      () => expect(said()).toContain(`process ${supervisor!.pid}) has ended (killed): it is restarted`),
      waitMs,
    );
    await vi.waitFor(
      () => expect(said()).toContain(`process ${next.pid}) has ended (signal 9): it is restarted`),
      waitMs,
    );
  });

  it('is asked once more about what it has not answered, and no more often', async () => {
    const passwd = join(top, 'fifo');
    execFileSync('mkfifo', [passwd]);
    await start([], { ...database, passwd });
    // A FIFO: an open waits for a writer.
    const outcome = attaches(users[1]);
    for (let i = 0; i < 2; i++) {
      const { pid } = await worker(supervisors()[0]!);
      expect(await withinMoment(outcome)).toBe('nothing');
      process.kill(pid, 'SIGKILL');
      await vi.waitFor(() => expect(server.log()).toContain(`process ${pid}) has ended`), waitMs);
    }
    expect(await outcome).toBe(EIO);
    expect(server.log()).toMatch(/the groups of uid 70001 cannot be had \(EIO \(5\)\)/);

    // A look-up is repeated when its process has ended.
    const again = attaches(users[1]);
    const supervisor = supervisors()[0]!;
    const { pid } = await worker(supervisor);
    expect(await withinMoment(again)).toBe('nothing');
    execFileSync('nsenter', [`--mount=/proc/${supervisor.pid}/ns/mnt`, 'umount', '-l', '/etc/passwd']);
    process.kill(pid, 'SIGKILL');
    expect(await again).toBe(true);
  });

  it('leaves an error and a line when all of it was ended at once', async () => {
    await start();
    const [supervisor] = supervisors();
    const { pid } = await worker(supervisor!);
    process.kill(pid, 'SIGSTOP');
    process.kill(pid, 'SIGKILL');
    process.kill(supervisor!.pid, 'SIGKILL');
    await vi.waitFor(() => expect(server.log()).toMatch(/ERROR.*ninepd-groups has ended and cannot/), waitMs);
    expect(await attaches(users[1])).toBe(EIO);
    expect(server.log()).toMatch(/the groups of uid 70001 cannot be had/);
  });

  it.each(['SIGTERM', 'SIGKILL'] as const)('ends with the server (%s)', async signal => {
    await start(['--workers', '2']);
    await vi.waitFor(() => expect(all()).toHaveLength(4), waitMs);
    const before = all();
    process.kill(server.pid, signal);
    await vi.waitFor(() => expect(before.filter(lives)).toEqual([]), waitMs);
  });
});

describe('a question about groups', () => {
  it('takes no answer to another one, nor a part that does not follow', async () => {
    const [ours, theirs] = socketPair();
    const said: string[] = [];
    const asked = new UserDatabase(ours, text => said.push(text));
    const question = new Uint32Array(2);
    const next = () =>
      vi.waitFor(() => {
        expect(receiveMessage(theirs, new Uint8Array(question.buffer), [])).toBe(8);
        return question[0]!;
      }, waitMs);
    const say = (...words: number[]) =>
      sendMessage(theirs, new Uint8Array(Uint32Array.from(words).buffer), []);

    const answer = asked.groupsOf(7);
    const same = asked.groupsOf(7);
    const id = await next();
    expect([...question]).toEqual([id, 7]);
    say(id - 1, 7, 0, 1, 1, 0, 1);
    say(id, 8, 0, 2, 1, 0, 2);
    say(id, 7, 0, 3, 4, 2, 3, 3);
    say(id, 7, 0, 50, 3, 0, 51, 52);
    say(id, 7, 0, 50, 3, 0, 61);
    say(id, 7, 0, 50, 3, 2, 53);
    expect(await answer).toEqual({ gid: 50, groups: [51, 52, 53] });
    expect(await same).toEqual(await answer);

    const begun = asked.groupsOf(9);
    const first = await next();
    say(first, 9, 0, 50, 2, 0, 51);
    say(0, 0, 123, 11);
    const second = await next();
    expect(second).not.toBe(first);
    say(first, 9, 0, 50, 2, 1, 52);
    say(second, 9, 0, 60, 2, 0, 61, 62);
    expect(await begun).toEqual({ gid: 60, groups: [61, 62] });
    expect(said).toEqual(['ninepd-groups (process 123) has ended (signal 11): it is restarted']);
    asked.close();
    await expect(asked.groupsOf(1)).rejects.toBe(EIO);
  });
});
