import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { cell, type Model } from '../check.ts';
import type { FixtureFactory, GuestFixture } from '../fixture.ts';

/** Two mounts of one export are two connections, hence two clients of the server. `host` is the server's machine. */
type Party = 'one' | 'two' | 'three' | 'host';

/** Locks between two mounts of an export, and between a mount and host programs. */
export function testLocks(model: Model, make: FixtureFactory): void {
  describe(`locks on a ${model} export`, () => {
    let fixture: GuestFixture;
    let file: string;
    let count = 0;
    const here = cell(model, 'none');
    const marks = `/tmp/ninepd-lock-${process.pid}-${model}`;

    beforeAll(async () => {
      fixture = await make();
      await fixture.mountCell(here, '/mnt/one');
      await fixture.mountCell(here, '/mnt/two');
      for (const party of ['one', 'host'] as const) await at(party, `mkdir -p ${marks}`);
    });
    afterAll(async () => {
      await fixture?.onHost(model, `rm -rf ${marks}`);
    });
    beforeEach(async () => {
      count += 1;
      file = `file${count}`;
      await at('one', `echo content > ${file}; chmod 666 ${file}`);
    });

    /** Runs a script in the party's view of the exported directory; resolves to its output. */
    async function at(party: Party, script: string, timeout?: number): Promise<string> {
      if (party === 'host') return await fixture.onHost(model, script);
      return (await fixture.guest.sh(`cd /mnt/${party}\n${script}`, { timeout })).stdout;
    }

    const held = (party: Party, op: string, start: number) => `${marks}/${file}-${party}-${op}-${start}`;

    /** Starts the lock program, which holds the lock until `release`. Resolves to its first line. */
    async function hold(party: Party, kind: string, op: string, start = 0, length = 0): Promise<string> {
      return await at(
        party,
        `out=${held(party, op, start)}; : > $out
        setsid lock ${kind} ${file} ${op} ${start} ${length} ${marks}/${file}-release > $out 2>&1 < /dev/null &
        echo $! > $out.pid
        for i in $(seq 100); do [ -s $out ] && break; sleep 0.05; done; cat $out`,
      );
    }
    const release = () => at('one', `touch ${marks}/${file}-release; sleep 0.2`);
    const kill = (party: Party, op: string) => at(party, `kill -9 $(cat ${held(party, op, 0)}.pid)`);

    async function attempt(party: Party, kind: string, op: string, start = 0, length = 0): Promise<string> {
      const now = `${marks}/now`;
      return await at(party, `touch ${now}; lock ${kind} ${file} ${op} ${start} ${length} ${now}`);
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
      await at('one', `rm ${marks}/${file}-release`);
      expect(await hold('one', 'posix', 'read', 0, 0)).toBe('locked');
      expect(await attempt('two', 'posix', 'read')).toBe('locked');
      expect(await attempt('two', 'posix', 'write')).toBe('busy');
      await release();
    });

    test('a question about a lock names the one that blocks it', async () => {
      expect(await attempt('two', 'posix', 'test', 0, 10)).toBe('free');
      expect(await hold('one', 'posix', 'write', 7, 5)).toBe('locked');
      expect(await attempt('two', 'posix', 'test', 0, 10)).toBe('held write 7 5');
      expect(await attempt('two', 'posix', 'test', 0, 7)).toBe('free');
      await release();
      expect(await attempt('two', 'posix', 'test', 0, 10)).toBe('free');
    });

    test('a waiter on the other mount has the lock within a second of its release', async () => {
      expect(await hold('one', 'posix', 'write')).toBe('locked');
      const waited = await at(
        'two',
        `touch ${marks}/now; lock posix ${file} wait 0 0 ${marks}/now > ${marks}/waited & sleep 2
        [ ! -s ${marks}/waited ]; touch ${marks}/${file}-release; wait $!; cat ${marks}/waited`,
      );
      const ms = Number(/locked (\d+)/.exec(waited)?.[1]);
      expect(ms).toBeGreaterThan(1500);
      expect(ms).toBeLessThan(3200);
    });

    test('the locks of a killed process and of a mount that is taken away are free', async () => {
      expect(await hold('one', 'posix', 'write')).toBe('locked');
      await kill('one', 'write');
      await at('one', 'sleep 0.3');
      expect(await attempt('two', 'posix', 'write')).toBe('locked');
      await fixture.mountCell(here, '/mnt/three');
      expect(await hold('three', 'flock', 'write')).toBe('locked');
      expect(await attempt('two', 'flock', 'write')).toBe('busy');
      await fixture.guest.sh(
        `umount -l /mnt/three; kill -9 $(cat ${held('three', 'write', 0)}.pid); sleep 0.5`,
      );
      expect(await attempt('two', 'flock', 'write')).toBe('locked');
    });

    test('a task that waits for a lock dies of SIGKILL at once and the mount lives on', async () => {
      expect(await hold('one', 'posix', 'write')).toBe('locked');
      const killed = await at(
        'two',
        `lock posix ${file} wait 0 0 & sleep 1; kill -9 $!
        began=$(date +%s%N); wait $! || code=$?; echo $code $(( ($(date +%s%N) - began) / 1000000 ))
        cat ${file} > /dev/null`,
        20_000,
      );
      const [code, ms] = killed.split(' ').map(Number);
      expect(code).toBe(137);
      expect(ms).toBeLessThan(1000);
      expect(await attempt('two', 'posix', 'write')).toBe('busy');
      await release();
      expect(await attempt('two', 'posix', 'write')).toBe('locked');
    });

    test('a lock that a host program holds keeps the guest out, and its end lets a waiter in', async () => {
      expect(await hold('host', 'ofd', 'write', 0, 10)).toBe('locked');
      expect(await attempt('one', 'ofd', 'write', 5, 1)).toBe('busy');
      expect(await attempt('one', 'posix', 'write', 10, 5)).toBe('locked');
      expect(await attempt('one', 'posix', 'test', 0, 20)).toBe('held write 0 10');
      const waiting = at('one', `touch ${marks}/now; lock posix ${file} wait 0 0 ${marks}/now`);
      await new Promise(resolve => setTimeout(resolve, 1500));
      const released = Date.now();
      await kill('host', 'write');
      expect(await waiting).toMatch(/^locked \d+$/);
      expect(Date.now() - released).toBeLessThan(1500);
    });

    test.each(['posix', 'ofd'])('a %s lock of the guest keeps a host program out', async kind => {
      expect(await hold('one', kind, 'write', 3, 4)).toBe('locked');
      expect(await attempt('host', 'posix', 'test', 0, 100)).toBe('held write 3 4');
      expect(await attempt('host', 'ofd', 'write', 0, 100)).toBe('busy');
      await release();
      expect(await attempt('host', 'ofd', 'write', 0, 100)).toBe('locked');
    });

    test('two processes that count in one file under a lock, one on each mount, lose no step', async () => {
      await fixture.onHost(model, 'printf 0 > counter');
      await fixture.guest.sh(`
        chmod 666 /mnt/one/counter
        count() { for i in $(seq 15); do flock /mnt/$1/counter bash -c 'n=$(cat /mnt/'$1'/counter); echo $((n + 1)) > /mnt/'$1'/counter'; done; }
        count one & first=$!; count two & second=$!; wait $first; wait $second
        [ "$(cat /mnt/one/counter)" = 30 ] || { cat /mnt/one/counter >&2; exit 1; }`);
    });

    test('at the end the kernel log is clean and the server holds nothing', async () => {
      await fixture.guest.umount('/mnt/one');
      await fixture.guest.umount('/mnt/two');
      await fixture.expectClean();
    });
  });
}
