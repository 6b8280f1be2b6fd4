import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { linkSync, statSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fdOf } from '#transport/handle.ts';
import { canServe, dir, files, program, Running, refused, start } from './cli-program.ts';

describe('sockets of the service manager', () => {
  // LISTEN_PID must be the shell's pid, which exec keeps.
  const launch = `LISTEN_PID=$$ exec "${process.execPath}" "${program}" serve "$0" "$@"`;

  function activated(args: readonly string[], fds: net.Server[], env: NodeJS.ProcessEnv): Running {
    const handles = fds.map(server => fdOf(server));
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
    const exited = once(notified, 'exit');
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
    await exited;
    expect(told).toBe('bound\nREADY=1\nSTOPPING=1\n');
  });

  it('are not taken when they are for another process', () => {
    const [problem] = refused('serve', files, '--listen', 'fd://guests');
    expect(problem).toContain('no socket named "guests"');
  });

  it('may be one connection, with which the program ends', async () => {
    const { server, port } = await listening();
    const client = net.connect(port, '127.0.0.1');
    const [connection] = (await once(server, 'connection')) as [net.Socket];
    const fd = fdOf(connection);
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
    expect(running.log).toMatch(/tcp 127\.0\.0\.1:\d+: connected/);
    client.end();
    expect(await running.ended()).toBe(0);
  });
});

describe('a listener that others can reach', () => {
  it('is warned of as long as an export does not say who may use it', async () => {
    const rules = ['--export', `${dir},name=mine,allow=uid:0`];
    const running = start([
      'serve',
      files,
      ...rules,
      '--listen',
      'tcp://0.0.0.0:0',
      '--listen',
      'tcp://[::1]:0',
    ]);
    await running.says(/tcp:\/\/0\.0\.0\.0:\d+ can be reached by other machines/);
    await running.says(/tcp:\/\/\[::1\]:\d+ can be reached by every user of this host/);
    expect(running.log.match(/can be reached/g)).toHaveLength(2);
    expect(running.log).toContain(`may use ${files}: restrict it`);
    expect(running.log).toContain(`may use ${files}: where that matters, listen on unix:///PATH`);
  });

  it('is not warned of when all exports do', async () => {
    const running = start(['--export', `${files},allow=tcp:10.0.0.0/8`, '--listen', 'tcp://0.0.0.0:0']);
    await running.says(/^listening on/m);
    await running.says(/mount -t 9p/);
    expect(running.log).not.toContain('can be reached');
  });

  it('is not warned of on loopback when its exports want ports that only root has', async () => {
    const running = start(['--export', `${files},privport=on`, '--listen', 'tcp://127.0.0.1:0']);
    await running.says(/mount -t 9p/);
    expect(running.log).not.toContain('can be reached');
  });

  it.each([
    ['tcp://127.0.0.1:0', []],
    ['tcp://[::1]:0', []],
    ['tcp://0.0.0.0:0', []],
    ['tcp://127.0.0.1:0', ['--sandbox', 'off']],
    ['tcp://127.0.0.1:0', ['--workers', '2']],
  ])('is refused to passthrough, with what to do instead: %s %j', (uri, args) => {
    const problems = refused('serve', files, '--security-model', 'passthrough', '--listen', uri, ...args);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(/every user of this host can connect there and be root in/);
    for (const remedy of ['unix:///PATH', 'allow=', 'privport=on', '--insecure-loopback'])
      expect(problems[0]).toContain(remedy);
  });

  it.each([
    [`${'allow=tcp:127.0.0.0/8'}`, []],
    ['privport=on', []],
    ['readonly=off', ['--insecure-loopback']],
  ])('is passthrough where somebody says so: %s %j', async (setting, args) => {
    const exported = `${files},security_model=passthrough,${setting}`;
    await start(['--export', exported, '--listen', 'tcp://127.0.0.1:0', ...args]).port();
  });

  it('may be a socket of the service manager that every user may write to', async () => {
    const path = join(dir, 's');
    const server = net.createServer().listen({ path, readableAll: true, writableAll: true });
    await once(server, 'listening');
    const fd = fdOf(server);
    const running = new Running(
      spawn(process.execPath, [program, 'serve', files, '--listen', 'fd://3'], {
        stdio: ['ignore', 'ignore', 'pipe', fd],
      }),
    );
    await running.says(/fd:\/\/3 can be reached by every user of this host/);
    // This process listens on it too, and removes the name when it stops.
    linkSync(path, `${path}2`);
    server.close();
    await canServe({ path: `${path}2` });
    expect(running.log).toMatch(/unix pid \d+ uid 0: connected/);
  });
});

describe('the owner of a Unix socket', () => {
  it('is the only one who may connect', async () => {
    const socket = join(dir, 's');
    const running = start(['serve', files, '--listen', `unix://${socket}`]);
    await running.says(/^listening on unix/m);
    expect(statSync(socket).mode & 0o777).toBe(0o600);
  });

  it('lets a group in too, if told so', async () => {
    const socket = join(dir, 's');
    const group = process.getgid!();
    const uri = `unix://${socket}?group=${group}`;
    const running = start(['serve', files, '--listen', uri]);
    expect((await running.says(/^listening on unix.*/m))[0]).toBe(`listening on ${uri}`);
    const { mode, gid } = statSync(socket);
    expect([mode & 0o777, gid]).toEqual([0o660, group]);
    await canServe({ path: socket });
  });

  it('is told of a group that is not there', () => {
    const problems = refused('serve', files, '--listen', `unix://${join(dir, 's')}?group=no-such-group`);
    expect(problems.join()).toContain('this machine has no group no-such-group');
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
