import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Tree } from '#backend/tree.ts';
import { silent } from '#base/log.ts';
import { linesMax } from '#base/rate-limited-log.ts';
import { Client, ConfigError, Server } from '#index.ts';
import { operations } from '#protocol/operations.ts';
import { InFlight } from '#quota/in-flight.ts';
import { defaultLimits, type Limits, limitFaults } from '#quota/limits.ts';
import { ServerShare } from '#quota/server-share.ts';
import { SessionQuota } from '#quota/session-quota.ts';
import { Session } from '#session/session.ts';
import { RawConnection } from '../conformance/raw-connection.ts';
import { errnoOf, O, TestClient } from '../conformance/test-client.ts';
import { logTo } from '../support/line-log.ts';

describe('what sessions hold', () => {
  const limits = { ...defaultLimits, opensPerSession: 60, opensPerExport: 100, sessionsPerExport: 3 };

  /** Repeats `act` until it fails; returns the number of successes. */
  function fill(one: SessionQuota): number {
    let count = 0;
    for (; one.mayAdd('opens', 1); count++) one.add('opens', 1);
    return count;
  }

  it('has a bound for each, and one for all on an export; those below an even share get theirs beyond it', () => {
    const tree = {} as Tree;
    const [a, b, c, d] = Array.from({ length: 4 }, () => new SessionQuota(limits)) as [
      SessionQuota,
      SessionQuota,
      SessionQuota,
      SessionQuota,
    ];
    expect([a, b, c, d].map(one => one.attach(tree))).toEqual([true, true, true, false]);
    expect(a.attach({} as Tree)).toBe(true);
    expect(fill(a)).toBe(60);
    expect(fill(b)).toBe(40);
    expect(fill(c)).toBe(33);
    b.add('opens', -40);
    expect(fill(c)).toBe(7);
    b.leave();
    expect(d.attach(tree)).toBe(true);
    expect(fill(d)).toBe(33);
  });

  it('is not shared with another export', () => {
    const [a, b] = [new SessionQuota(limits), new SessionQuota(limits)];
    a.attach({} as Tree);
    b.attach({} as Tree);
    expect([fill(a), fill(b)]).toEqual([60, 60]);
  });
});

describe('what sessions use at a time', () => {
  it('is an even share where there are many', () => {
    const shares = new ServerShare({
      ...defaultLimits,
      requestsPerSession: 100,
      requestsInAll: 1000,
      bytesPerSession: 50,
      bytesInAll: 500,
    });
    const loads: InFlight[] = [];
    const join = (sessions: number) => {
      while (loads.length < sessions) loads.push(new InFlight(shares, () => undefined));
    };
    expect([shares.requests, shares.bytes]).toEqual([100, 50]);
    join(10);
    expect([shares.requests, shares.bytes]).toEqual([100, 50]);
    join(40);
    expect([shares.requests, shares.bytes]).toEqual([25, 12.5]);
    join(5000);
    // One request at a time is always allowed.
    expect(shares.requests).toBe(1);
    expect(shares.bytes).toBeGreaterThan(0);
    for (const load of loads.splice(10)) load.leave();
    expect([shares.requests, shares.bytes]).toEqual([100, 50]);
  });

  it('makes whoever was refused ask again, whatever gives room', () => {
    const shares = new ServerShare({
      ...defaultLimits,
      requestsPerSession: 2,
      requestsInAll: 2,
      bytesInAll: 200,
      unreadBytesInAll: 20,
    });
    let asked = 0;
    const load = new InFlight(shares, () => void asked++);
    const other = new InFlight(shares, () => undefined);
    load.begin(false, 50);
    expect(load.takes(false, 0)).toBe(false);
    expect(load.takes(true, 0)).toBe(true);
    // The last admitted client continues on its own.
    load.end(false, 50);
    expect([load.takes(false, 0), asked]).toEqual([true, 0]);
    load.begin(false, 50);
    const gives: [refused: () => boolean, give: () => void][] = [
      [() => load.takes(false, 0), () => load.end(false, 50)],
      [() => load.takes(false, 11), () => other.leave()],
    ];
    for (const [at, [takes, give]] of gives.entries()) {
      expect(takes()).toBe(false);
      give();
      expect(asked).toBe(at + 1);
      expect(takes()).toBe(true);
    }
    load.keep(200);
    expect(load.takes(false, 0)).toBe(false);
    load.keep(-1);
    expect([asked, load.takes(false, 0)]).toEqual([3, true]);
    // A waiting lock counts only the memory kept for it.
    load.begin(true, 1);
    expect(load.takes(false, 0)).toBe(false);
    load.end(true, 1);
    expect([asked, load.takes(false, 0)]).toEqual([4, true]);
  });
});

const [Tgetattr, Tflush] = [operations.getattr.type, operations.flush.type];

describe('a session', () => {
  it('takes nothing but flushes while its requests and what is kept for them are as many as it may have', () => {
    const limits = { ...defaultLimits, bytesPerSession: 100, unreadBytesPerSession: 50 };
    let resumed = 0;
    const transport = { peer: { label: 'test' }, hangUp: () => undefined, resume: () => void resumed++ };
    const session = new Session({ exports: { find: () => undefined }, transport, log: silent, limits });
    const takes = () => [Tgetattr, Tflush].map(type => session.takes(type, 0));
    expect([50, 51].map(unread => session.takes(Tflush, unread))).toEqual([true, false]);
    session.account(99);
    expect(takes()).toEqual([true, true]);
    session.account(1);
    expect(takes()).toEqual([false, true]);
    expect(session.takes(Tgetattr, 0)).toBe(false);
    session.account(-1);
    expect([resumed, ...takes()]).toEqual([1, true, true]);
  });
});

describe('a server with bounds of its own', () => {
  let dir: string;
  let server: Server;
  let lines: string[];
  const ends: (() => Promise<unknown>)[] = [];
  const path = () => join(dir, 's');

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-bounds-'));
    for (const name of ['a', 'b']) mkdirSync(join(dir, name));
    writeFileSync(join(dir, 'a', 'f'), 'content');
    lines = [];
  });
  afterEach(async () => {
    await Promise.all(ends.splice(0).map(end => end()));
    await server.close();
    rmSync(dir, { recursive: true });
  });

  async function serve(limits: Partial<Limits>): Promise<void> {
    const log = logTo(lines);
    const exports = ['a', 'b'].map(name => ({ path: join(dir, name), name }));
    server = await Server.open({ exports, limits, log });
    await server.listen(`unix://${path()}`);
  }

  async function begin(aname = 'a'): Promise<TestClient> {
    const client = await TestClient.begin({ path: path() }, { aname });
    ends.push(() => client.close());
    return client;
  }

  async function silent(address: NetConnectOpts) {
    const socket = connect(address);
    socket.on('error', () => undefined);
    ends.push(async () => socket.destroy());
    await once(socket, 'connect');
    return socket;
  }

  it('refuses the connection that is one too many, of all or of one peer, and takes one when another ends', async () => {
    await serve({ connections: 3, connectionsPerPeer: 2 });
    const port = Number(/(\d+)$/.exec(await server.listen('tcp://127.0.0.1:0'))![1]);
    const [first] = [await begin(), await begin()];
    const third = await silent({ path: path() });
    await once(third, 'close');
    expect(lines.at(-1)).toMatch(/^unix pid \d+ uid 0: refused, since it has 2 connections$/);
    await silent({ host: '127.0.0.1', port, localAddress: '127.0.0.2' });
    const fourth = await silent({ host: '127.0.0.1', port, localAddress: '127.0.0.3' });
    await once(fourth, 'close');
    expect(lines.at(-1)).toMatch(/refused, since 3 connections are open$/);
    await first!.close();
    while (server.connections > 2) await new Promise(resolve => setImmediate(resolve));
    await begin();
  });

  it('says little of a peer that comes again and again, whatever it does', async () => {
    await serve({ connectionsPerPeer: 1 });
    const device = join(dir, 'device');
    await server.listen(`vhost-user://${device}?tag=t`);
    const gone = (socket: Socket) => new Promise(resolve => socket.on('close', resolve));
    // A refused connection, invalid framing, a failed attach, and an invalid monitor message.
    const acts = [
      async () => {
        const holder = await begin();
        await gone(await silent({ path: path() }));
        await holder.close();
      },
      async () => {
        const socket = await silent({ path: path() });
        socket.end(Buffer.alloc(64));
        await gone(socket.resume());
      },
      async () => {
        const client = await Client.connect({ path: path() });
        await client.attach('none').catch(() => undefined);
        await client.close();
      },
      async () => {
        const socket = await silent({ path: device });
        socket.end(Buffer.alloc(64, 0xff));
        await gone(socket.resume());
      },
    ];
    for (let round = 0; round < 40; round++) {
      for (const act of acts) {
        await act();
        while (server.connections > 0) await new Promise(resolve => setImmediate(resolve));
      }
    }
    // For this user and for the device, at levels info and warn.
    expect(lines).toHaveLength(4 * linesMax);
    await server.close();
    const counts = lines.slice(4 * linesMax).map(transport => transport.replace(/ more of this.*/, ''));
    expect(counts.sort()).toEqual([
      'unix uid 0: 300',
      'unix uid 0: 60',
      `vhost-user ${device}: 20`,
      `vhost-user ${device}: 20`,
    ]);
  });

  it('closes a connection that says no version, however long it has been there, and no other', async () => {
    await serve({ versionSeconds: 1 });
    const c = await begin();
    const mute = await silent({ path: path() });
    const began = performance.now();
    await once(mute, 'close');
    expect(performance.now() - began).toBeGreaterThan(900);
    expect(lines.filter(transport => transport.includes('no version for 1 s'))).toHaveLength(1);
    await c.look(0);
    // A session that has lost its version.
    await c.client.wire.request('version', { msize: 8192, version: '9P1999' });
    await c.client.wire.closed;
  });

  it('closes a connection that attaches nowhere, and takes no large message before', async () => {
    await serve({ attachSeconds: 1 });
    const c = await begin();
    const wire = async () => (await Client.connect({ path: path() })).wire;
    await (await wire()).closed;
    expect(lines.filter(line => line.includes('no attach to an export for 1 s'))).toHaveLength(1);
    const large = await wire();
    large.socket.write(Buffer.of(0, 0, 8, 0, 118, 1, 0));
    await large.closed;
    expect(lines.filter(line => line.includes('8192 are allowed'))).toHaveLength(1);
    await c.look(0);
  });

  it('refuses an attach to an export with all the sessions that it may have', async () => {
    await serve({ sessionsPerExport: 2 });
    const first = await begin();
    await begin();
    expect(await errnoOf(begin())).toBe('EUSERS');
    await begin('b');
    await first.close();
    while (server.connections > 3) await new Promise(resolve => setImmediate(resolve));
    await begin();
  });

  it('refuses the fid that is one too many, and gives what was clunked again', async () => {
    await serve({ fidsPerSession: 5 });
    const c = await begin();
    const fids = [await c.walk(0), await c.walk(0, 'f'), await c.walk(0, 'f'), await c.walk(0)];
    for (const name of ['f', undefined]) {
      expect(await errnoOf(name ? c.walk(0, name) : c.walk(0))).toBe('EMFILE');
    }
    expect(await errnoOf(c.call('xattrwalk', { fid: 0, newfid: 77, name: '' }))).toBe('EMFILE');
    expect(await errnoOf(c.attach(78))).toBe('EMFILE');
    await c.clunk(fids[0]!);
    await c.walk(0, 'f');
    expect(await errnoOf(c.walk(0))).toBe('EMFILE');
    // A new version starts without open files.
    await c.client.version(8192);
    await c.attach(0);
    for (let i = 0; i < 4; i++) await c.walk(0);
    expect(await errnoOf(c.walk(0))).toBe('EMFILE');
  });

  it('counts the fids of an export over its sessions, and gives an even share to each', async () => {
    await serve({ fidsPerExport: 3000 });
    const greedy = await begin();
    const polite = await begin();
    let held = 1;
    while ((await errnoOf(greedy.walk(0))) === 'none') held++;
    expect(held).toBeGreaterThan(1900);
    expect(held).toBeLessThanOrEqual(3000);
    for (let i = 1; i < 1500; i++) await polite.walk(0);
    expect(await errnoOf(polite.walk(0))).toBe('EMFILE');
    await greedy.close();
    while (server.connections > 1) await new Promise(resolve => setImmediate(resolve));
    await polite.walk(0);
  });

  it('refuses to open one more file or directory, or to create one', async () => {
    await serve({ opensPerSession: 3 });
    const c = await begin();
    const file = await c.walk(0, 'f');
    const open = await c.open(file, O.RDONLY);
    await c.open(0, O.RDONLY);
    await c.create(0, 'g');
    expect(await errnoOf(c.open(file, O.RDONLY))).toBe('EMFILE');
    expect(await errnoOf(c.open(0, O.RDONLY))).toBe('EMFILE');
    expect(await errnoOf(c.create(0, 'h'))).toBe('EMFILE');
    expect(await errnoOf(c.walk(0, 'h'))).toBe('ENOENT');
    await c.clunk(open);
    await c.open(file, O.RDONLY);
    // A failed open does not count.
    expect(await errnoOf(c.open(file, O.RDONLY))).toBe('EMFILE');
  });

  it('refuses xattr values beyond its bytes', async () => {
    await serve({ xattrBytesPerSession: 100 });
    const c = await begin();
    const file = await c.walk(0, 'f');
    const create = async (attr_size: number) => {
      const fid = await c.walk(0, 'f');
      await c.call('xattrcreate', { fid, name: 'user.x', attr_size, flags: 0 });
      return fid;
    };
    const first = await create(60);
    await create(40);
    expect(await errnoOf(create(1))).toBe('ENOMEM');
    expect(await errnoOf(c.clunk(first))).toBe('EINVAL');
    await create(60);
    expect(await errnoOf(c.setXattr(file, 'user.y', 'y'))).toBe('ENOMEM');
  });

  it('reads no more requests of a session than may run, and goes on when one is over', async () => {
    await serve({ waitingLocksPerSession: 1, requestsPerSession: 2 });
    const holder = await begin();
    const held = await holder.open(await holder.walk(0, 'f'), O.RDWR);
    const lockFields = { type: 1, flags: 0, start: 0, length: 0, proc_id: 1, client_id: 'a' };
    await holder.call('lock', { ...lockFields, fid: held });
    const c = await begin();
    const mine = await c.open(await c.walk(0, 'f'), O.RDWR);
    // A waiting lock is not a running request; a second one is answered with BLOCKED.
    const waits = c.call('lock', { ...lockFields, fid: mine, flags: 1 });
    expect(await c.call('lock', { ...lockFields, fid: mine, flags: 1, proc_id: 2 })).toEqual({ status: 1 });
    await Promise.all(Array.from({ length: 50 }, () => c.call('fsync', { fid: mine, datasync: 0 })));
    await holder.clunk(held);
    expect(await waits).toEqual({ status: 0 });
  });

  it('says of every bound that is none what is wrong with it', async () => {
    await serve({});
    expect(limitFaults({ connections: 0, fidsPerSession: 1.5, nonsense: 5 } as never)).toHaveLength(3);
    const opening = Server.open({ exports: [{ path: '/none' }], limits: { connections: -1 } });
    await expect(opening).rejects.toThrow(ConfigError);
    expect(((await opening.catch(error => error)) as ConfigError).problems).toHaveLength(2);
  });

  it('serves a polite session in between, however many connections flood it', async () => {
    await serve({});
    const floods = await Promise.all(Array.from({ length: 16 }, () => RawConnection.begin(path())));
    for (const one of floods) ends.push(() => one.end());
    const port = Number(/(\d+)$/.exec(await server.listen('tcp://127.0.0.1:0'))![1]);
    const polite = await TestClient.begin({ port });
    ends.push(() => polite.close());
    // Tgetattr of the root, thousands in each piece.
    const one = Buffer.from('13000000180100'.concat('00000000', 'ff3f000000000000'), 'hex');
    const piece = Buffer.concat(Array<Buffer>(6000).fill(one));
    let answered = 0;
    let over = false;
    for (const { socket } of floods) {
      socket.removeAllListeners('data');
      socket.on('data', chunk => {
        answered += chunk.length / 160;
      });
      const send = () => {
        if (!over) socket.write(piece, send);
      };
      send();
    }
    const between: number[] = [];
    for (let round = 0; round < 40; round++) {
      const before = answered;
      await polite.look(0);
      between.push(answered - before);
    }
    over = true;
    // Without time slices, a round trip waits for the requests of all sixteen: tens of thousands.
    const median = between.sort((a, b) => a - b)[20]!;
    expect(answered).toBeGreaterThan(1000);
    expect(median).toBeLessThan(6000);
  });
});
