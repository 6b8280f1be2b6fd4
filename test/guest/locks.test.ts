import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Bench, expectOnlyRoots } from './bench.ts';
import { cell, type Model } from './check.ts';

// Two mounts of one export are two connections: to the server they are two clients. A third party is a program of
// this machine that locks the exported file itself.

const models: Model[] = ['mapped', 'passthrough'];

describe.each(models)('locks on a %s export', model => {
  let bench: Bench;
  let file: string;
  let count = 0;
  const here = cell(model, 'none');

  beforeAll(async () => {
    bench = await Bench.start({ cpus: 2 });
    await bench.mount(here, '/mnt/one');
    await bench.mount(here, '/mnt/two');
  });
  afterAll(async () => {
    await bench?.stop();
  });
  beforeEach(async () => {
    count += 1;
    file = `file${count}`;
    await bench.guest.sh(`echo content > /mnt/one/${file}; chmod 666 /mnt/one/${file}`);
  });

  /** Starts the lock program in the guest; it holds until `release`. Gives back its first line. */
  async function hold(mount: string, kind: string, op: string, start = 0, length = 0): Promise<string> {
    const tag = `${mount}-${op}-${start}`;
    const { stdout } = await bench.guest.sh(`
      out=/tmp/${file}-${tag}; : > $out
      setsid lock ${kind} /mnt/${mount}/${file} ${op} ${start} ${length} /tmp/${file}-release > $out 2>&1 < /dev/null &
      echo $! > $out.pid
      for i in $(seq 100); do [ -s $out ] && break; sleep 0.05; done; cat $out`);
    return stdout;
  }
  const release = () => bench.guest.sh(`touch /tmp/${file}-release; sleep 0.2`);

  async function attempt(mount: string, kind: string, op: string, start = 0, length = 0): Promise<string> {
    const { stdout } = await bench.guest.sh(`
      touch /tmp/now; lock ${kind} /mnt/${mount}/${file} ${op} ${start} ${length} /tmp/now`);
    return stdout;
  }

  function hostLock(kind: string, op: string, start = 0, length = 0): ChildProcess {
    const path = join(bench.hostDir(model), file);
    return spawn(join(bench.guest.programs, 'lock'), [kind, path, op, `${start}`, `${length}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }
  async function firstLine(child: ChildProcess): Promise<string> {
    const [bytes] = await once(child.stdout!, 'data');
    return `${bytes}`.trim();
  }

  test.each(['posix', 'ofd', 'flock'])(
    'a %s lock of one mount is seen and respected by the other',
    async kind => {
      expect(await hold('one', kind, 'write')).toBe('locked');
      expect(await attempt('two', kind, 'write')).toBe('busy');
      expect(await attempt('two', kind, 'read')).toBe('busy');
      await release();
      expect(await attempt('two', kind, 'write')).toBe('locked');
    },
  );

  test('ranges conflict only where they overlap, and readers share', async () => {
    expect(await hold('one', 'ofd', 'write', 100, 50)).toBe('locked');
    expect(await attempt('two', 'ofd', 'write', 0, 100)).toBe('locked');
    expect(await attempt('two', 'ofd', 'write', 150, 0)).toBe('locked');
    expect(await attempt('two', 'ofd', 'write', 149, 1)).toBe('busy');
    expect(await attempt('two', 'ofd', 'read', 0, 101)).toBe('busy');
    await release();
    await bench.guest.sh(`rm /tmp/${file}-release`);
    expect(await hold('one', 'posix', 'read', 0, 0)).toBe('locked');
    expect(await attempt('two', 'posix', 'read')).toBe('locked');
    expect(await attempt('two', 'posix', 'write')).toBe('busy');
    await release();
  });

  test('a question about a lock names the one that is in the way', async () => {
    expect(await attempt('two', 'posix', 'test', 0, 10)).toBe('free');
    expect(await hold('one', 'posix', 'write', 7, 5)).toBe('locked');
    expect(await attempt('two', 'posix', 'test', 0, 10)).toBe('held write 7 5');
    expect(await attempt('two', 'posix', 'test', 0, 7)).toBe('free');
    await release();
    expect(await attempt('two', 'posix', 'test', 0, 10)).toBe('free');
  });

  test('a waiter on the other mount has the lock within a second of its release', async () => {
    expect(await hold('one', 'posix', 'write')).toBe('locked');
    const { stdout } = await bench.guest.sh(`
      touch /tmp/now; lock posix /mnt/two/${file} wait 0 0 /tmp/now > /tmp/waited & sleep 2
      [ ! -s /tmp/waited ]; touch /tmp/${file}-release; wait $!; cat /tmp/waited`);
    const waited = Number(/locked (\d+)/.exec(stdout)?.[1]);
    expect(waited).toBeGreaterThan(1500);
    expect(waited).toBeLessThan(3200);
  });

  test('the locks of a killed process and of a mount that is taken away are free', async () => {
    expect(await hold('one', 'posix', 'write')).toBe('locked');
    await bench.guest.sh(`kill -9 $(cat /tmp/${file}-one-write-0.pid); sleep 0.3`);
    expect(await attempt('two', 'posix', 'write')).toBe('locked');
    await bench.mount(here, '/mnt/three');
    expect(await hold('three', 'flock', 'write')).toBe('locked');
    expect(await attempt('two', 'flock', 'write')).toBe('busy');
    await bench.guest.sh(`umount -l /mnt/three; kill -9 $(cat /tmp/${file}-three-write-0.pid); sleep 0.5`);
    expect(await attempt('two', 'flock', 'write')).toBe('locked');
  });

  test('a task that waits for a lock dies of SIGKILL at once and the mount lives on', async () => {
    expect(await hold('one', 'posix', 'write')).toBe('locked');
    const { stdout } = await bench.guest.sh(
      `lock posix /mnt/two/${file} wait 0 0 & sleep 1; kill -9 $!
       began=$(date +%s%N); wait $! || code=$?; echo $code $(( ($(date +%s%N) - began) / 1000000 ))
       cat /mnt/two/${file} > /dev/null`,
      { timeout: 20_000 },
    );
    const [code, ms] = stdout.split(' ').map(Number);
    expect(code).toBe(137);
    expect(ms).toBeLessThan(1000);
    expect(await attempt('two', 'posix', 'write')).toBe('busy');
    await release();
    expect(await attempt('two', 'posix', 'write')).toBe('locked');
  });

  test('a lock that a host program holds keeps the guest out, and its end lets a waiter in', async () => {
    const child = hostLock('ofd', 'write', 0, 10);
    try {
      expect(await firstLine(child)).toBe('locked');
      expect(await attempt('one', 'ofd', 'write', 5, 1)).toBe('busy');
      expect(await attempt('one', 'posix', 'write', 10, 5)).toBe('locked');
      expect(await attempt('one', 'posix', 'test', 0, 20)).toBe('held write 0 10');
      const waiting = bench.guest.sh(`touch /tmp/now; lock posix /mnt/one/${file} wait 0 0 /tmp/now`);
      await new Promise(resolve => setTimeout(resolve, 1500));
      const released = Date.now();
      child.kill('SIGKILL');
      expect((await waiting).stdout).toMatch(/^locked \d+$/);
      expect(Date.now() - released).toBeLessThan(1500);
    } finally {
      child.kill('SIGKILL');
    }
  });

  test.each(['posix', 'ofd'])('a %s lock of the guest keeps a host program out', async kind => {
    expect(await hold('one', kind, 'write', 3, 4)).toBe('locked');
    const question = hostLock('posix', 'test', 0, 100);
    expect(await firstLine(question)).toBe('held write 3 4');
    const taker = hostLock('ofd', 'write', 0, 100);
    expect(await firstLine(taker)).toBe('busy');
    await release();
    const later = hostLock('ofd', 'write', 0, 100);
    expect(await firstLine(later)).toBe('locked');
    later.kill('SIGKILL');
  });

  test('two processes that count in one file under a lock, one on each mount, lose no step', async () => {
    writeFileSync(join(bench.hostDir(model), 'counter'), '0');
    await bench.guest.sh(`
      chmod 666 /mnt/one/counter
      count() { for i in $(seq 15); do flock /mnt/$1/counter bash -c 'n=$(cat /mnt/'$1'/counter); echo $((n + 1)) > /mnt/'$1'/counter'; done; }
      count one & first=$!; count two & second=$!; wait $first; wait $second
      [ "$(cat /mnt/one/counter)" = 30 ] || { cat /mnt/one/counter >&2; exit 1; }`);
  });

  test('at the end the kernel log is clean and the server holds nothing', async () => {
    expect(await bench.guest.complaints()).toEqual([]);
    await bench.guest.umount('/mnt/one');
    await bench.guest.umount('/mnt/two');
    await expectOnlyRoots(bench);
  });
});
