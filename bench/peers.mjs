// The servers to compare, and how to start them.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { root } from '../scripts/setup.mjs';
import { findDiod, programs } from './setup.mjs';

const startMsMax = 20_000;

const ninepd = (model, label, { parameters = '', more = [] } = {}) => ({
  label: `ninepd ${label}`,
  model,
  tree: model === 'mapped' ? 'mapped' : 'host',
  ours: true,
  command: directory => [
    process.execPath,
    join(root, 'dist', 'cli', 'main.js'),
    'serve',
    '--export',
    `${directory.replaceAll(',', ',,')},security_model=${model}`,
    ...['--listen', `tcp://127.0.0.1:0${parameters}`, '--log-level', 'warn'],
    ...(model === 'passthrough' ? ['--insecure-loopback'] : []),
    ...more,
  ],
});

/**
 * By name, in the order of the table; the floor is first, since the others are compared with it. `measures` selects the cases
 * of a peer; `onlyIfAsked`: only with `--peers`.
 */
export const peers = {
  floor: { label: 'C loop', tree: 'host', command: directory => [programs.floor, directory] },
  diod: {
    label: 'diod',
    tree: 'host',
    needsPort: true,
    // No credentials, no user database, no configuration of the machine; in the foreground.
    command: (directory, port) => [
      findDiod(),
      ...['-f', '-n', '-N', '-c', '/dev/null', '-L', 'stderr', '-e', directory, '-l', `127.0.0.1:${port}`],
    ],
  },
  passthrough: ninepd('passthrough', 'passthrough'),
  mapped: ninepd('mapped', 'mapped'),
  /** Busy polling: for one request at a time. */
  polled: {
    ...ninepd('mapped', 'mapped, polled', { parameters: '?busy-poll=200' }),
    measures: ({ depth, pause, connections }) => depth === 1 && !pause && connections === undefined,
  },
  /** Shows the cost of the sandbox. */
  unconfined: {
    ...ninepd('mapped', 'mapped, no sandbox', { more: ['--sandbox', 'off'] }),
    onlyIfAsked: true,
  },
  workers: {
    ...ninepd('mapped', 'mapped, 2 workers', { more: ['--workers', '2'] }),
    measures: ({ connections }) => connections !== undefined,
  },
};

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Running descendants of a process. */
function descendants(pid) {
  const direct = readdirSync(`/proc/${pid}/task`).flatMap(thread =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
  return direct.flatMap(child => [child, ...descendants(child)]);
}

/** Running servers, stopped if the benchmark is interrupted. */
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGTERM');
});
for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
])
  process.on(signal, () => process.exit(status));

/** A running server: `uri`, `aname`, `stop`. */
export class Running {
  static async start(name, directory) {
    const peer = peers[name];
    const port = peer.needsPort ? await freePort() : undefined;
    const [program, ...args] = peer.command(directory, port);
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(child);
    child.on('exit', () => children.delete(child));
    const running = new Running(name, directory, child);
    try {
      running.uri = port ? await running.#accepts(port) : await running.#listens();
    } catch (error) {
      await running.stop();
      throw error;
    }
    return running;
  }

  constructor(name, directory, child) {
    this.name = name;
    this.aname = directory;
    this.child = child;
    this.said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', text => {
        this.said = (this.said + text).slice(-16_384);
      });
    }
    child.on('error', error => {
      this.said += error.message;
    });
  }

  get pids() {
    return [this.child.pid, ...descendants(this.child.pid)];
  }

  async #until(condition) {
    const end = Date.now() + startMsMax;
    for (;;) {
      const result = await condition();
      if (result) return result;
      if (this.child.exitCode !== null || this.child.pid === undefined || Date.now() > end) {
        throw new Error(`${this.name} does not start:\n${this.said}`);
      }
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  }

  #listens() {
    return this.#until(() => /listening on (tcp:\S+)/.exec(this.said)?.[1]);
  }

  #accepts(port) {
    const answers = () =>
      new Promise(resolve => {
        const socket = connect(port, '127.0.0.1', () => resolve(`tcp://127.0.0.1:${port}`));
        socket.on('error', () => resolve(undefined)).on('close', () => resolve(undefined));
        socket.on('connect', () => socket.destroy());
      });
    return this.#until(answers);
  }

  async stop() {
    const { child } = this;
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
    await ended;
    clearTimeout(timer);
  }
}
