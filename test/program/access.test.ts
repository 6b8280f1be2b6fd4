import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Origin } from '#base/peer.ts';
import { Access, accessProblems } from '#exports/access.ts';
import { Client, Errno, MemoryTree, Server, Wire } from '#index.ts';
import { logTo } from '../support/line-log.ts';
import { Frontend } from '../support/vhost-frontend.ts';

const tcp = (address: string, port = 40_000): Origin => ({ kind: 'tcp', address, port });
const unix = (uid: number, gid = uid): Origin => ({ kind: 'unix', uid, gid });
const vsock = (cid: number, port = 40_000): Origin => ({ kind: 'vsock', cid, port });

function may(origin: Origin | undefined, ...allow: string[]): boolean {
  expect(accessProblems({ allow })).toEqual([]);
  const access = new Access({ allow });
  return access.refusal(origin ? { label: 'peer', origin } : { label: 'peer' }) === undefined;
}

describe('a rule who may attach', () => {
  it('names a virtual machine, or all of them', () => {
    expect(may(vsock(5), 'cid:5')).toBe(true);
    expect(may(vsock(6), 'cid:5')).toBe(false);
    expect(may(vsock(6), 'cid:any')).toBe(true);
    expect(may(unix(5), 'cid:5', 'cid:any')).toBe(false);
  });

  it('names a user or a group at the other end of a Unix socket', () => {
    expect(may(unix(1000, 100), 'uid:1000')).toBe(true);
    expect(may(unix(1000, 100), 'gid:100')).toBe(true);
    expect(may(unix(100, 1000), 'uid:1000', 'gid:100')).toBe(false);
    expect(may(tcp('127.0.0.1'), 'uid:0')).toBe(false);
  });

  it('names addresses, and an IPv4 address is the same on a socket that takes both', () => {
    expect(may(tcp('10.9.8.7'), 'tcp:10.0.0.0/8')).toBe(true);
    expect(may(tcp('::ffff:10.9.8.7'), 'tcp:10.0.0.0/8')).toBe(true);
    expect(may(tcp('11.9.8.7'), 'tcp:10.0.0.0/8')).toBe(false);
    expect(may(tcp('192.0.2.7'), 'tcp:192.0.2.7')).toBe(true);
    expect(may(tcp('192.0.2.8'), 'tcp:192.0.2.7')).toBe(false);
    expect(may(tcp('10.9.8.7'), 'tcp:::ffff:10.0.0.0/104')).toBe(true);
    expect(may(tcp('10.9.8.7'), 'tcp:::ffff:a00:0/104')).toBe(true);
    expect(may(tcp('11.9.8.7'), 'tcp:::ffff:10.0.0.0/104')).toBe(false);
    expect(may(tcp('0.0.0.0'), 'tcp:0.0.0.0/0')).toBe(true);
  });

  it('keeps the two families apart, whatever the prefix', () => {
    expect(may(tcp('fd00::17'), 'tcp:fd00::/8')).toBe(true);
    expect(may(tcp('fd00::17'), 'tcp:[fd00::]/8')).toBe(true);
    expect(may(tcp('fe80::1%eth0'), 'tcp:fe80::/10')).toBe(true);
    expect(may(tcp('fe00::17'), 'tcp:fd00::/8')).toBe(false);
    expect(may(tcp('10.0.0.1'), 'tcp:::/0')).toBe(false);
    expect(may(tcp('::ffff:10.0.0.1'), 'tcp:::/0')).toBe(false);
    expect(may(tcp('fd00::17'), 'tcp:0.0.0.0/0')).toBe(false);
  });

  it('is one of several, and no peer that is not known fulfils any', () => {
    expect(may(vsock(7), 'uid:0', 'cid:7', 'tcp:127.0.0.1')).toBe(true);
    expect(may(undefined, 'uid:0', 'cid:any', 'tcp:0.0.0.0/0', 'tcp:::/0')).toBe(false);
  });

  it('is refused with words that help when it names nobody', () => {
    const wrong = {
      '10.0.0.0/8': 'tcp:ADDRESS/PREFIX',
      'cid:x': 'allow=cid:1000',
      'uid:root': 'a number',
      'uid:4294967295': 'a number',
      'tcp:10.0.0/8': 'tcp:10.0.0.0/8',
      'tcp:10.0.0.0/33': '32 bits',
      'tcp:fd00::/129': '128 bits',
      'tcp:fe80::1%eth0': 'no address',
      'tcp:[fd00::': 'no address',
      'tcp:': 'no address',
    };
    for (const [rule, words] of Object.entries(wrong)) {
      expect(accessProblems({ allow: [rule] }).join(), rule).toContain(words);
    }
    expect(accessProblems({ allow: ['x', 'cid:5', 'y'] })).toHaveLength(2);
    expect(accessProblems({ allow: [] }).join()).toContain('leave it out');
  });

  it('asks with privport for ports that no user of a guest can have', () => {
    const access = new Access({ privport: true });
    const refused = (origin: Origin) => access.refusal({ label: 'peer', origin }) !== undefined;
    expect([tcp('::1', 1023), vsock(3, 1023), unix(1000)].map(refused)).toEqual([false, false, false]);
    expect([tcp('::1', 1024), vsock(3, 1024)].map(refused)).toEqual([true, true]);
    expect(access.refusal({ label: 'peer' })).toBeDefined();
  });
});

describe('an attach', () => {
  let dir: string;
  let lines: string[];
  let server: Server;
  const sockets: Wire[] = [];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-access-'));
    chmodSync(dir, 0o755);
    lines = [];
  });
  afterEach(async () => {
    for (const wire of sockets.splice(0)) wire.socket.destroy();
    await server.close();
    rmSync(dir, { recursive: true });
  });

  async function open(exports: readonly { name: string; allow?: string[]; privport?: boolean }[]) {
    const log = logTo(lines);
    for (const { name } of exports) mkdirSync(join(dir, name));
    server = await Server.open({ exports: exports.map(one => ({ ...one, path: join(dir, one.name) })), log });
  }

  /** A client with this source address or port. */
  async function client(uri: string, from: { localAddress?: string; localPort?: number } = {}) {
    const socket = connect({
      port: Number(/(\d+)$/.exec(uri)![1]),
      host: /::1/.test(uri) ? '::1' : '127.0.0.1',
      ...from,
    });
    await once(socket, 'connect');
    const wire = new Wire(socket);
    sockets.push(wire);
    const made = new Client(wire);
    // A peer that no export is for is disconnected.
    await made.version(65_536).catch(() => undefined);
    return made;
  }

  async function attach(by: Client, aname: string): Promise<string> {
    try {
      await by.attach(aname, 0);
      return 'attached';
    } catch (error) {
      return error instanceof Errno ? error.name : 'closed';
    }
  }

  it('goes to the exports that the address may use, and the others look like those that are not there', async () => {
    await open([
      { name: 'one', allow: ['tcp:127.0.0.1'] },
      { name: 'two', allow: ['tcp:127.0.0.2'] },
    ]);
    const uri = await server.listen('tcp://0.0.0.0:0');
    const one = await client(uri);
    const two = await client(uri, { localAddress: '127.0.0.2' });
    const none = await client(uri, { localAddress: '127.0.0.3' });
    const names = ['one', 'two', join(dir, 'one'), join(dir, 'two'), 'absent', '', '/'];
    const all = async (by: Client) => {
      const answers: string[] = [];
      for (const name of names) answers.push(await attach(by, name));
      return answers;
    };
    const yes = 'attached';
    const no = 'EACCES';
    expect(await all(one)).toEqual([yes, no, yes, no, no, yes, yes]);
    expect(await all(two)).toEqual([no, yes, no, yes, no, yes, yes]);
    expect(new Set(await all(none))).toEqual(new Set(['closed']));
  });

  it('by path goes to the first export of that path that the peer may use', async () => {
    await open([{ name: 'x' }]);
    await server.close();
    const path = join(dir, 'x');
    server = await Server.open({
      exports: [
        { path, name: 'two', allow: ['tcp:127.0.0.2'], readonly: true },
        { path, name: 'one', allow: ['tcp:127.0.0.1'] },
      ],
    });
    const peer = await client(await server.listen('tcp://127.0.0.1:0'));
    expect([await attach(peer, path), await attach(peer, 'two')]).toEqual(['attached', 'EACCES']);
    await peer.mkdir(await peer.attach(path), 'd');
  });

  it('by an IPv6 socket that takes IPv4 as well is judged by the IPv4 address', async () => {
    await open([{ name: 'one', allow: ['tcp:127.0.0.2/32'] }]);
    const uri = await server.listen('tcp://[::]:0');
    const port = Number(/(\d+)$/.exec(uri)![1]);
    expect(await attach(await client(`tcp://127.0.0.1:${port}`, { localAddress: '127.0.0.2' }), 'one')).toBe(
      'attached',
    );
    expect(await attach(await client(`tcp://127.0.0.1:${port}`), 'one')).toBe('closed');
    expect(await attach(await client(`tcp://[::1]:${port}`), 'one')).toBe('closed');
  });

  it('in vain is logged once, with the reason, and an absent name is ENOENT where nothing is kept back', async () => {
    await open([{ name: 'secret', allow: ['cid:5', 'uid:0'] }, { name: 'free' }]);
    const uri = await server.listen('tcp://127.0.0.1:0');
    const peer = await client(uri);
    for (const name of ['secret', 'secret', '', 'free']) await attach(peer, name);
    const said = lines.map(line => line.replace(/^tcp \S+ /, ''));
    expect(said).toEqual([
      'connected',
      'asks for secret, which it may not use: tcp:127.0.0.1 is not among allow=cid:5,allow=uid:0',
      'uses free (mapped)',
    ]);
    await server.close();
    await open([{ name: 'open' }]);
    expect(await attach(await client(await server.listen('tcp://127.0.0.1:0')), 'absent')).toBe('ENOENT');
  });

  it('from a port that any program could have is refused with privport', async () => {
    await open([{ name: 'one', privport: true }]);
    const uri = await server.listen('tcp://127.0.0.1:0');
    expect(await attach(await client(uri), 'one')).toBe('closed');
    expect(lines.join()).toMatch(
      /refused, since no export is for it: port \d+ is one that any program could have/,
    );
    // Tests run as root, so bind(2) allows it.
    expect(await attach(await client(uri, { localPort: 611 }), 'one')).toBe('attached');
  });

  it('by a Unix socket is judged by who connected', async () => {
    await open([
      { name: 'one', allow: ['uid:1234'] },
      { name: 'two', allow: ['gid:4321'] },
      { name: 'three', allow: ['uid:0'] },
    ]);
    const path = join(dir, 's');
    await server.listen(`unix://${path}`);
    chmodSync(path, 0o666);
    const own = await Client.connect({ path });
    sockets.push(own.wire);
    expect([await attach(own, 'one'), await attach(own, 'two'), await attach(own, 'three')]).toEqual([
      'EACCES',
      'EACCES',
      'attached',
    ]);
    // A program of another user: sends Tversion and a Tattach for each name, prints the types of the replies.
    const asked = await other(path, ['one', 'two', 'three']);
    expect(asked).toEqual([105, 105, 7]);
  });

  /** The replies to another user of this machine; asynchronous, since the server runs in this process. */
  async function other(path: string, names: readonly string[]): Promise<number[]> {
    const child = spawn(process.execPath, ['-e', program, path, ...names], {
      uid: 1234,
      gid: 4321,
      cwd: '/',
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', more => {
      text += more;
    });
    const [status] = await once(child, 'exit');
    expect(status).toBe(0);
    return JSON.parse(text) as number[];
  }

  const program = `
    const [path, ...names] = process.argv.slice(1);
    const string = text => { const b = Buffer.from('xx' + text); b.writeUInt16LE(text.length); return b; };
    const u32 = n => { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; };
    const frame = (type, tag, ...parts) => {
      const body = Buffer.concat(parts);
      const head = Buffer.alloc(7);
      head.writeUInt32LE(7 + body.length); head[4] = type; head.writeUInt16LE(tag, 5);
      return Buffer.concat([head, body]);
    };
    const socket = require('net').connect(path);
    socket.write(frame(100, 65535, u32(8192), string('9P2000.L')));
    names.forEach((name, i) => socket.write(frame(104, i, u32(i), u32(0xffffffff), string(''), string(name), u32(0))));
    const types = [];
    let bytes = Buffer.alloc(0);
    socket.on('data', chunk => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 7 && bytes.length >= bytes.readUInt32LE(0)) {
        if (bytes[4] !== 101) types[bytes.readUInt16LE(5)] = bytes[4];
        bytes = bytes.subarray(bytes.readUInt32LE(0));
      }
      if (types.filter(Boolean).length === names.length) { console.log(JSON.stringify(types)); process.exit(0); }
    });`;

  it('through a device of a guest is judged by who runs the monitor, and by no port', async () => {
    await open([
      { name: 'theirs', allow: ['uid:1234'] },
      { name: 'mine', allow: ['uid:0'], privport: true },
    ]);
    const path = join(dir, 'd');
    await server.listen(`vhost-user://${path}?tag=all`);
    await server.listen(`vhost-user://${path}2?tag=one&export=theirs`);
    const asked = async (socket: string, ...names: string[]) => {
      const guest = await Frontend.connect(socket);
      await guest.start();
      await guest.request('version', { msize: 8192, version: '9P2000.L' });
      const answers: string[] = [];
      for (const [fid, aname] of names.entries()) {
        const tattach = { fid, afid: 0xffff_ffff, uname: '', aname, n_uname: 0 };
        const reply = await guest.request('attach', tattach);
        answers.push(reply instanceof Errno ? reply.name : 'attached');
      }
      guest.close();
      return answers;
    };
    expect(await asked(path, 'theirs', 'mine', '', 'absent')).toEqual([
      'EACCES',
      'attached',
      'attached',
      'EACCES',
    ]);
    await expect(asked(`${path}2`, 'theirs')).rejects.toThrow('closed');
    expect(lines.join()).toMatch(/refused, since no export is for it: uid:0/);
  });

  it('goes to a backend of its own by the same rules', async () => {
    const tree = new MemoryTree({ bytesMax: 1 << 20 });
    server = await Server.open({ exports: [{ name: 'memory', tree, allow: ['tcp:127.0.0.2'] }] });
    const uri = await server.listen('tcp://127.0.0.1:0');
    expect(await attach(await client(uri), 'memory')).toBe('closed');
    expect(await attach(await client(uri, { localAddress: '127.0.0.2' }), 'memory')).toBe('attached');
  });
});
