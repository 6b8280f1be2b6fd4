import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { dir, files, program, Running, start } from './cli-program.ts';

const listen = ['--listen', 'tcp://127.0.0.1:0'];

async function warnings(running: Running): Promise<string[]> {
  await running.port();
  running.child.kill('SIGTERM');
  await running.ended();
  return [...running.log.matchAll(/WARN: (export .*)/g)].map(([, text]) => text!);
}

it('warns of an export that is mounted read-only, unless it is readonly=on', async () => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'none', files]);
  try {
    for (const sandbox of ['on', 'off'])
      expect(
        await warnings(
          start(['serve', '--export', `${files},security_model=none`, '--sandbox', sandbox, ...listen]),
        ),
      ).toEqual([
        `export ${files}: it is mounted read-only, so that every change fails with EROFS: mount it read-write, or say readonly=on`,
      ]);
    const readonly = ['--export', `${files},security_model=none,readonly=on`];
    expect(await warnings(start(['serve', ...readonly, ...listen]))).toEqual([]);
  } finally {
    execFileSync('umount', ['-l', files]);
  }
});

it('warns of an export that its user may not write', async () => {
  chmodSync(dir, 0o755);
  const own = join(dir, 'own');
  mkdirSync(own);
  chownSync(own, 65534, 65534);
  const args = [
    '--export',
    `${files},name=a`,
    '--export',
    `${own},name=b`,
    '--export',
    `${files},name=c,readonly=on`,
  ];
  const child = spawn(process.execPath, [program, 'serve', ...args, ...listen], {
    ...{ cwd: '/', uid: 65534, gid: 65534, stdio: ['ignore', 'ignore', 'pipe'] },
  });
  expect(await warnings(new Running(child))).toEqual([
    expect.stringMatching(
      new RegExp(
        `^export ${files}: this user may not write in it, .* \\(EACCES\\): change its permissions, run as its owner`,
      ),
    ),
  ]);
});
