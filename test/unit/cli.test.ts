import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client } from '../../src/client/client.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = join(root, 'dist/cli/main.js');
const P9_RDWR = 2;

let dir: string;
let files: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  if (!existsSync(program)) throw new Error(`${program} is not there: npm run build`);
  dir = mkdtempSync(join(tmpdir(), 'ninepd-cli-'));
  files = join(dir, 'files');
  mkdirSync(files);
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  rmSync(dir, { recursive: true, force: true });
});

class Running {
  readonly child: ChildProcess;
  log = '';
  constructor(child: ChildProcess) {
    this.child = child;
    children.push(child);
    child.stderr!.setEncoding('utf8').on('data', text => {
      this.log += text;
    });
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    for (let i = 0; i < 1000; i++) {
      const found = pattern.exec(this.log);
      if (found) return found;
      if (this.child.exitCode !== null) break;
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    throw new Error(`${pattern} does not come:\n${this.log}`);
  }

  async port(): Promise<number> {
    return Number((await this.says(/^listening on tcp:\/\/127\.0\.0\.1:(\d+)$/m))[1]);
  }

  async ended(): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit');
    return this.child.exitCode;
  }
}

function start(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; stdio?: (net.Socket | 'pipe' | 'ignore')[] } = {},
): Running {
  const { env = {}, stdio = ['ignore', 'ignore', 'pipe'] } = options;
  return new Running(
    spawn(process.execPath, [program, ...args], { cwd: dir, env: { ...process.env, ...env }, stdio }),
  );
}

function refused(...args: string[]): string[] {
  const { status, stderr } = spawnSync(process.execPath, [program, ...args], {
    cwd: dir,
    encoding: 'utf8',
    timeout: 20_000,
  });
  expect(status, stderr).toBe(2);
  expect(stderr).not.toContain('listening on');
  return stderr.split('\n').filter(line => line.startsWith('  - '));
}

/** Writes a file through the server and reads it on the host. */
async function canServe(address: { port: number } | { path: string }, where = files): Promise<void> {
  const client = await Client.connect(address);
  const fid = await client.attach('', 0);
  await client.lcreate(fid, 'made', P9_RDWR);
  await client.writeAll(fid, Buffer.from('through the server'));
  client.wire.socket.destroy();
  expect(readFileSync(join(where, 'made'), 'utf8')).toBe('through the server');
}

describe('the program', () => {
  it('shows its help and its version on standard output', () => {
    const help = execFileSync(process.execPath, [program, '--help'], { encoding: 'utf8' });
    for (const word of [
      '--export',
      '--security-model',
      '--listen',
      '--msize-max',
      '--log-level',
      'readonly=on',
      'unix:///',
    ]) {
      expect(help).toContain(word);
    }
    expect(Math.max(...help.split('\n').map(line => line.length))).toBeLessThanOrEqual(110);
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(execFileSync(process.execPath, [program, 'version'], { encoding: 'utf8' })).toBe(
      `ninepd ${version}\n`,
    );
  });

  it('serves ./share when nothing is said, and makes it', async () => {
    const running = start(['--listen', 'tcp://127.0.0.1:0']);
    await canServe({ port: await running.port() }, join(dir, 'share'));
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('says one plain line for each listener, and how to mount each export', async () => {
    const socket = join(dir, 's');
    const running = start([
      ...['serve', files, '--export', `${files},name=again,readonly=on`],
      ...['--listen', 'tcp://127.0.0.1:0', '--listen', `unix://${socket}`],
    ]);
    const port = await running.port();
    await running.says(/^listening on unix:.*$/m);
    await running.says(/aname=again,access=client \/.*\/s \/mnt/);
    expect(running.log.match(/^listening on /gm)).toHaveLength(2);
    expect(running.log).toContain(
      `mount -t 9p -o trans=tcp,port=${port},version=9p2000.L,msize=1048576,aname=${files},access=client 10.0.2.2 /mnt`,
    );
    await canServe({ path: socket });
    running.child.kill('SIGINT');
    expect(await running.ended()).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('gives a guest the export it asks for, by name or path, and the first when it asks for none', async () => {
    const other = join(dir, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'here'), '');
    const running = start([
      'serve',
      files,
      '--export',
      `${other},name=another`,
      '--listen',
      'tcp://127.0.0.1:0',
    ]);
    const client = await Client.connect({ port: await running.port() });
    for (const aname of ['', '/', files]) {
      await expect(client.walk(await client.attach(aname, 0), 'here')).rejects.toMatchObject({
        name: 'ENOENT',
      });
    }
    for (const aname of ['another', other]) await client.walk(await client.attach(aname, 0), 'here');
    await expect(client.attach('unknown', 0)).rejects.toMatchObject({ name: 'ENOENT' });
    client.wire.socket.destroy();
  });

  it('agrees to no larger messages than it was told', async () => {
    const running = start(['serve', files, '--msize-max', '20000', '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    expect(client.msize).toBe(20000);
    client.wire.socket.destroy();
  });

  it('names every fault at once with status 2, starts nothing and leaves nothing', () => {
    const faults = refused(
      ...['serve', 'none', '--export', program, '--export', `${files},name=a`, '--export', `${root},name=a`],
      ...['--export', `${files},security_model=passthrough,fmode=0600`, '--nonsense', '--listen', 'udp://x'],
      ...['--listen', `unix://${dir}/s`, '--log-level', 'loud'],
    );
    const words = ['nonsense', 'udp', 'loud', 'mkdir -p', 'not a directory', 'same name', 'fmode'];
    for (const word of words) expect(faults.join('\n')).toContain(word);
    expect(faults).toHaveLength(words.length);
    expect(readdirSync(dir)).toEqual(['files']);
  });

  it('names every listener that cannot be, and opens none then', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as net.AddressInfo;
    writeFileSync(join(dir, 'file'), '');
    const faults = refused(
      'serve',
      files,
      '--listen',
      `unix://${dir}/s`,
      '--listen',
      `tcp://127.0.0.1:${port}`,
      '--listen',
      `unix://${dir}/file`,
    );
    expect(faults).toHaveLength(2);
    expect(faults[0]).toContain('in use');
    expect(faults[1]).toContain('no socket');
    expect(readdirSync(dir).sort()).toEqual(['file', 'files']);
    taken.close();
  });

  it('refuses mapped on a file system without user attributes', () => {
    // Sysfs has none, on any machine.
    const [fault] = refused('serve', '/sys/kernel', '--listen', 'tcp://127.0.0.1:0');
    expect(fault).toContain('extended attributes');
  });

  it('refuses passthrough without the privileges it needs, naming them', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [program, 'serve', '/', '--security-model', 'passthrough'],
      {
        encoding: 'utf8',
        ...(process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}),
      },
    );
    expect(status, stderr).toBe(2);
    expect(stderr).toContain('CAP_CHOWN, CAP_DAC_OVERRIDE');
  });

  it('answers what runs before it stops, and ends connections', async () => {
    const running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    await client.writeAll(fid, Buffer.alloc(1_000_000));
    const synced = client.wire.request('fsync', { fid, datasync: 0 });
    await client.getattr(fid);
    running.child.kill('SIGTERM');
    await synced;
    await client.wire.closed;
    expect(await running.ended()).toBe(0);
    expect(running.log).toContain('stopped');
  });

  it('stops although somebody waits for a lock', async () => {
    const running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    const wish = { fid, type: 1, flags: 1, start: 0, length: 0, proc_id: 1, client_id: 'a' } as const;
    expect((await client.wire.request('lock', wish)).status).toBe(0);
    client.wire.request('lock', { ...wish, proc_id: 2 }).catch(() => undefined);
    await client.getattr(fid);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('writes at its --log-level only', async () => {
    const quiet = start(['serve', files, '--log-level', 'error', '--listen', 'tcp://127.0.0.1:0']);
    await canServe({ port: await quiet.port() });
    expect(quiet.log).toMatch(/^listening on \S+\n$/);
    const loud = start(['serve', files, '--log-level', 'trace', '--listen', 'tcp://127.0.0.1:0']);
    await canServe({ port: await loud.port() });
    await loud.says(/Tlcreate|lcreate/);
  });

  it('gives a guest EFBIG at the limit for file sizes, and lives', async () => {
    const command = `ulimit -f 1; exec "${process.execPath}" "${program}" serve "${files}" --listen tcp://127.0.0.1:0`;
    const running = new Running(spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'pipe'] }));
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    await expect(client.write(fid, 1 << 20, Buffer.from('x'))).rejects.toMatchObject({ name: 'EFBIG' });
    await client.getattr(fid);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });
});

describe('sockets of the service manager', () => {
  // The shell's own process number is what LISTEN_PID must say, and exec keeps it.
  const launch = `LISTEN_PID=$$ exec "${process.execPath}" "${program}" serve "$0" "$@"`;

  function activated(args: readonly string[], fds: net.Server[], env: NodeJS.ProcessEnv): Running {
    const handles = fds.map(server => (server as unknown as { _handle: { fd: number } })._handle.fd);
    const child = spawn('sh', ['-c', launch, files, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe', ...handles],
    });
    return new Running(child);
  }

  async function listening(): Promise<{ server: net.Server; port: number }> {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { server, port: (server.address() as net.AddressInfo).port };
  }

  it('are all used when no other is named', async () => {
    const [one, two] = [await listening(), await listening()];
    const running = activated([], [one.server, two.server], { LISTEN_FDS: '2' });
    await running.says(/^listening on fd:\/\/4$/m);
    one.server.close();
    two.server.close();
    expect(running.log).toContain('listening on fd://3\n');
    await canServe({ port: one.port });
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('are found by name, and the manager is told when the program is ready and when it stops', async () => {
    const one = await listening();
    const socket = join(dir, 'notify');
    const notified = spawn('python3', [
      '-c',
      `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1])
print('bound', flush=True)
for i in range(2): print(s.recv(4096).decode(), flush=True)`,
      socket,
    ]);
    children.push(notified);
    let told = '';
    notified.stdout.setEncoding('utf8').on('data', text => {
      told += text;
    });
    while (!told.includes('bound')) await once(notified.stdout, 'data');
    const running = activated(['--listen', 'fd://guests'], [one.server], {
      LISTEN_FDS: '1',
      LISTEN_FDNAMES: 'guests',
      NOTIFY_SOCKET: socket,
    });
    await running.says(/^listening on fd:\/\/3$/m);
    one.server.close();
    await canServe({ port: one.port });
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    await once(notified, 'exit');
    expect(told).toBe('bound\nREADY=1\nSTOPPING=1\n');
  });

  it('are not taken when they are for another process', () => {
    const [fault] = refused('serve', files, '--listen', 'fd://guests');
    expect(fault).toContain('no socket named "guests"');
  });

  it('may be one connection, with which the program ends', async () => {
    const { server, port } = await listening();
    const client = net.connect(port, '127.0.0.1');
    const [connection] = (await once(server, 'connection')) as [net.Socket];
    const fd = (connection as unknown as { _handle: { fd: number } })._handle.fd;
    const running = new Running(
      spawn(process.execPath, [program, 'serve', files, '--listen', 'fd://3'], {
        stdio: ['ignore', 'ignore', 'pipe', fd],
      }),
    );
    await running.says(/^listening on fd:\/\/3$/m);
    connection.destroy();
    server.close();
    const version = Buffer.from('1500000064ffff0020000008003950323030302e4c', 'hex');
    client.write(version);
    const [reply] = (await once(client, 'data')) as [Buffer];
    expect(reply[4]).toBe(101);
    client.end();
    expect(await running.ended()).toBe(0);
  });
});

describe('the owner of a Unix socket', () => {
  it('is the only one who may connect', async () => {
    const socket = join(dir, 's');
    const running = start(['serve', files, '--listen', `unix://${socket}`]);
    await running.says(/^listening on unix/m);
    expect(statSync(socket).mode & 0o777).toBe(0o600);
  });

  it('can start again after the program was killed', async () => {
    const socket = join(dir, 's');
    const first = start(['serve', files, '--listen', `unix://${socket}`]);
    await first.says(/^listening on unix/m);
    first.child.kill('SIGKILL');
    await first.ended();
    const second = start(['serve', files, '--listen', `unix://${socket}`]);
    await second.says(/^listening on unix/m);
    await canServe({ path: socket });
  });
});
