import { expect, it } from 'vitest';
import { conform, type ServerHarness, soon } from './server-harness.ts';
import { errnoOf, O, type TestClient } from './test-client.ts';

const [RDLCK, WRLCK, UNLCK] = [0, 1, 2];
const [SUCCESS, BLOCKED] = [0, 1];
const BLOCK = 1;

interface LockFields {
  readonly type?: number;
  readonly flags?: number;
  readonly start?: number;
  readonly length?: number;
  readonly proc_id?: number;
  readonly client_id?: string;
}

/** A guest with the file open. All guests have equal client_ids and proc_ids, as cloned machines do. */
class Guest {
  readonly c: TestClient;
  readonly fid: number;

  constructor(c: TestClient, fid: number) {
    this.c = c;
    this.fid = fid;
  }

  async lock({
    type = WRLCK,
    flags = 0,
    start = 0,
    length = 0,
    proc_id = 1,
    client_id = 'vm',
  }: LockFields = {}) {
    const { status } = await this.c.call('lock', {
      fid: this.fid,
      type: type as number,
      flags,
      start,
      length,
      proc_id,
      client_id,
    });
    return status;
  }

  unlock(lockFields: LockFields = {}) {
    return this.lock({ ...lockFields, type: UNLCK });
  }

  test({ type = UNLCK, start = 0, length = 0, proc_id = 1, client_id = 'vm' }: LockFields = {}) {
    return this.c.call('getlock', { fid: this.fid, type: type as number, start, length, proc_id, client_id });
  }
}

async function guests(harness: ServerHarness, count = 2): Promise<Guest[]> {
  const { c, dir, name } = await harness.begin();
  await c.file(dir, 'f', 'content');
  const all: Guest[] = [];
  for (let i = 0; i < count; i++) {
    const one = await harness.connect();
    all.push(new Guest(one, await one.open(await one.walk(0, name, 'f'), O.RDWR)));
  }
  return all;
}

conform('Tlock', harness => {
  it('keeps other clients out of a range, and lets readers in together (LK-1)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    expect(await a.lock({ start: 10, length: 10 })).toBe(SUCCESS);
    expect(await b.lock({ start: 15, length: 1 })).toBe(BLOCKED);
    expect(await b.lock({ start: 15, length: 1, type: RDLCK })).toBe(BLOCKED);
    expect(await b.lock({ start: 20, length: 5 })).toBe(SUCCESS);
    expect(await b.lock({ start: 0, length: 10 })).toBe(SUCCESS);
    expect(await b.unlock()).toBe(SUCCESS);
    expect(await a.lock({ type: RDLCK, start: 10, length: 10 })).toBe(SUCCESS);
    expect(await b.lock({ type: RDLCK })).toBe(SUCCESS);
    expect(await a.lock({ start: 10, length: 1 })).toBe(BLOCKED);
  });

  it('that waits gets the lock when it is free, or is told to come again (LK-2)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    await a.lock();
    const waiting = b.lock({ flags: BLOCK });
    await harness.pause(20);
    await a.unlock();
    let status = await waiting;
    if (status === BLOCKED) status = await b.lock({ flags: BLOCK });
    expect(status).toBe(SUCCESS);
    expect(await a.lock()).toBe(BLOCKED);
  });

  it('that waits is not answered before its time, and holds nobody up (LK-2)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    await a.lock();
    let answered = false;
    const waiting = b.lock({ flags: BLOCK }).finally(() => {
      answered = true;
    });
    for (let i = 0; i < 20; i++) {
      await b.c.look(b.fid);
      await b.c.read(b.fid, 0, 7);
      await harness.pause(5);
    }
    expect(answered).toBe(false);
    await a.unlock();
    const freed = performance.now();
    expect(await waiting).toBe(SUCCESS);
    expect(performance.now() - freed).toBeLessThan(1000);
  });

  it('ends with the fid, the session or the connection (LK-3)', async () => {
    const all = await guests(harness, 4);
    const b = all.pop()!;
    const [byClunk, byCut, byVersion] = all as [Guest, Guest, Guest];
    const ways: [Guest, () => Promise<unknown>][] = [
      [byClunk, () => byClunk.c.clunk(byClunk.fid)],
      [byCut, () => byCut.c.close()],
      [byVersion, () => byVersion.c.client.version(8192)],
    ];
    for (const [guest, end] of ways) {
      expect(await guest.lock()).toBe(SUCCESS);
      expect(await b.lock()).toBe(BLOCKED);
      await end();
      await soon(async () => expect(await b.lock()).toBe(SUCCESS));
      await b.unlock();
    }
  });

  it('of two processes of a client are two locks (LK-4)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    for (const proc_id of [1, 2]) expect(await a.lock({ type: RDLCK, proc_id })).toBe(SUCCESS);
    await a.unlock({ proc_id: 1 });
    expect(await b.lock()).toBe(BLOCKED);
    await a.unlock({ proc_id: 2 });
    expect(await b.lock()).toBe(SUCCESS);
  });

  it('may be split by unlocking its middle, and 0 is the length to the end (LK-5)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    await a.lock({ start: 0, length: 100 });
    await a.unlock({ start: 40, length: 20 });
    expect(await b.lock({ start: 39, length: 2 })).toBe(BLOCKED);
    expect(await b.lock({ start: 59, length: 2 })).toBe(BLOCKED);
    expect(await b.lock({ start: 40, length: 20 })).toBe(SUCCESS);
    expect(await b.lock({ start: 100, length: 0 })).toBe(SUCCESS);
    expect(await a.lock({ start: 2 ** 50, length: 1 })).toBe(BLOCKED);
    await a.unlock({ start: 0, length: 0 });
    expect(await b.lock({ start: 0, length: 0 })).toBe(SUCCESS);
  });

  it('reaches to the end with the largest length there is (LK-5)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    const whole = { ...harness.lockFields, fid: a.fid, start: 0n, length: 2n ** 63n - 1n };
    await a.c.loose('lock', whole);
    expect(await b.lock({ start: 2 ** 52, length: 1 })).toBe(BLOCKED);
    await a.c.loose('lock', { ...whole, type: UNLCK! });
    expect(await b.lock()).toBe(SUCCESS);
  });

  it('is upgraded and downgraded in place', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    await a.lock({ type: RDLCK });
    expect(await a.lock({ type: WRLCK })).toBe(SUCCESS);
    expect(await b.lock({ type: RDLCK })).toBe(BLOCKED);
    expect(await a.lock({ type: RDLCK, start: 0, length: 10 })).toBe(SUCCESS);
    expect(await b.lock({ type: RDLCK, start: 0, length: 10 })).toBe(SUCCESS);
    expect(await b.lock({ type: RDLCK, start: 10, length: 1 })).toBe(BLOCKED);
  });

  it('of two clients with the same name and process still conflict (LK-6)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    await a.lock({ client_id: 'localhost', proc_id: 1 });
    expect(await b.lock({ client_id: 'localhost', proc_id: 1 })).toBe(BLOCKED);
    expect(await a.lock({ client_id: 'localhost', proc_id: 1 })).toBe(SUCCESS);
  });

  it('refuses what is no lock (LK-8)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    expect(await errnoOf(a.lock({ type: 7 }))).toBe('EINVAL');
    const common = { fid: a.fid, type: WRLCK!, flags: 0, proc_id: 1, client_id: 'vm' };
    for (const [start, length] of [
      [2n ** 63n - 1n, 2n],
      [2n ** 63n, 1n],
      [2n ** 64n - 1n, 2n ** 64n - 1n],
    ] as const)
      expect(['EINVAL', 'EOVERFLOW']).toContain(
        await errnoOf(a.c.loose('lock', { ...common, start, length })),
      );
    expect(await errnoOf(a.c.call('lock', { ...common, fid: 9999, start: 0, length: 0 }))).toBe('EBADF');
    expect(await b.lock()).toBe(SUCCESS);
  });

  it('needs an open fid', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    const lock = { type: WRLCK!, flags: 0, start: 0, length: 0, proc_id: 1, client_id: '' };
    expect(await errnoOf(c.call('lock', { fid, ...lock }))).toBe('EBADF');
    expect(await errnoOf(c.call('getlock', { fid, ...lock }))).toBe('EBADF');
  });
});

conform('Tgetlock', harness => {
  it('tells of the lock in the way, and otherwise that there is none (LK-7)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    await a.lock({ start: 10, length: 5, proc_id: 42, client_id: 'guest-a' });
    // Another process sees the lock but not its owner.
    const owner =
      harness.backend.differs.lockOwners === 'unknown'
        ? { proc_id: 1, client_id: '' }
        : { proc_id: 42, client_id: 'guest-a' };
    expect(await b.test({ type: UNLCK })).toMatchObject({ type: WRLCK, start: 10, length: 5, ...owner });
    expect((await b.test({ type: RDLCK, start: 12, length: 1 })).type).toBe(WRLCK);
    expect((await b.test({ start: 15, length: 5 })).type).toBe(UNLCK);
    expect((await a.test({ proc_id: 42, client_id: 'guest-a' })).type).toBe(UNLCK);
    await a.lock({ type: RDLCK, proc_id: 42, client_id: 'guest-a' });
    expect((await b.test({ type: RDLCK })).type).toBe(UNLCK);
    expect((await b.test({ type: WRLCK })).type).toBe(RDLCK);
  });

  it('never answers with more than the buffer of the client holds (LK-8)', async () => {
    const [a, b] = (await guests(harness)) as [Guest, Guest];
    const client_id = 'x'.repeat(60_000);
    await a.lock({ client_id });
    const seen = await b.test({ client_id });
    expect(seen.client_id.length).toBeLessThan(4000);
    expect((await a.test({ client_id })).client_id.length).toBeLessThan(4000);
    expect(await errnoOf(a.test({ type: 7 }))).toBe('EINVAL');
  });
});
