import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { alice, Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { prelude } from './check.ts';

// A developer's directory: ninepd runs as an ordinary user, and both sides work with the files.

/** The user that serves; in the guest its files are alice's. */
const developer = 12_345;

let dir: string;
let guest: Guest;
let server: Ninepd;

const at = (...names: string[]) => join(dir, 'project', ...names);
const bits = (...names: string[]) => (lstatSync(at(...names)).mode & 0o7777).toString(8);
/** Runs a program of this machine as the developer. */
const onHost = (command: string, ...args: string[]) =>
  execFileSync(command, args, {
    cwd: at(),
    uid: developer,
    gid: developer,
    encoding: 'utf8',
    // Not npm's settings of the user who runs the tests.
    env: { PATH: process.env.PATH, HOME: join(dir, 'home'), GIT_CONFIG_NOSYSTEM: '1' },
  });
const inGuest = (script: string, timeout = 60_000) =>
  guest.sh(`${prelude} cd /mnt/p; export HOME=/tmp/alice; mkdir -p $HOME; umask 022\n${script}`, {
    user: alice,
    timeout,
  });

beforeAll(async () => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-none-')));
  chmodSync(dir, 0o755);
  for (const path of [at(), join(dir, 'home')]) {
    mkdirSync(path);
    chownSync(path, developer, developer);
  }
  // Node.js and npm of this machine, for the guest.
  const tools = join(dir, 'tools');
  mkdirSync(tools);
  copyFileSync(process.execPath, join(tools, 'node'));
  const npm = realpathSync(execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim());
  cpSync(dirname(dirname(npm)), join(tools, 'npm'), { recursive: true, dereference: true });
  server = await Ninepd.start({
    exports: [
      { path: at(), name: 'project', securityModel: 'none', settings: ['owner=1000:1000'] },
      { path: tools, name: 'tools', securityModel: 'none', readonly: true },
    ],
    user: developer,
  });
  guest = await Guest.start({ memory: 1536, cpus: 1 });
  await guest.mount({ trans: 'tcp', port: server.port, aname: 'tools', path: '/mnt/t', cache: 'loose' });
});
afterAll(async () => {
  await guest?.stop();
  await server?.stop();
  rmSync(dir, { recursive: true, force: true });
});

describe.each(['none', 'loose'] as const)('a developer whose guest has cache=%s', cache => {
  beforeAll(async () => {
    for (const name of readdirSync(at())) rmSync(at(name), { recursive: true });
    await guest.mount({ trans: 'tcp', port: server.port, aname: 'project', path: '/mnt/p', cache });
  });
  afterAll(() => guest.umount('/mnt/p'));

  /** With cache=loose a guest keeps what it has seen: what the host changes it sees in what it has not looked at. */
  const freshly = async () => {
    if (cache === 'none') return;
    await guest.umount('/mnt/p');
    await guest.mount({ trans: 'tcp', port: server.port, aname: 'project', path: '/mnt/p', cache });
  };

  test('runs on each side what the other has written', async () => {
    await inGuest(`printf '#!/bin/sh\\necho "$0 runs"\\n' > script; chmod +x script; ln -s script link
      same "$(./link)" './link runs'; same "$(stat -c %u:%g:%a script link | paste -sd' ')" '1000:1000:755 1000:1000:777'
      ln script again; mkfifo fifo; (echo through > fifo &); same "$(cat fifo)" through`);
    await guest.sh('sync');
    expect(onHost('./link')).toBe('./link runs\n');
    expect([bits('script'), readlinkSync(at('link')), lstatSync(at('fifo')).isFIFO()]).toEqual([
      ...['755', 'script', true],
    ]);
    expect(lstatSync(at('again')).ino).toBe(lstatSync(at('script')).ino);
    for (const name of readdirSync(at())) expect(lstatSync(at(name)).uid).toBe(developer);
    appendFileSync(at('script'), 'echo "and what the host added"\n');
    onHost(
      'sh',
      '-c',
      `printf '#!/bin/sh\\necho of the host\\n' > theirs; chmod 700 theirs; ln -s theirs way`,
    );
    await freshly();
    await inGuest(`same "$(./script | tail -1)" 'and what the host added'; same "$(./way)" 'of the host'
      same "$(stat -c %u:%a theirs)" 1000:700; echo 'echo and of the guest' >> theirs`);
    await guest.sh('sync');
    expect(onHost('./theirs')).toBe('of the host\nand of the guest\n');
  });

  test('clones, builds and commits on both sides', async () => {
    await inGuest(
      `git init -q -b main origin; cd origin; git config user.email a@b; git config user.name alice
      printf '#include <stdio.h>\\nint main(void) { puts("built"); return 0; }\\n' > hello.c
      printf 'hello: hello.c\\n\\ttcc -o hello hello.c\\n' > Makefile
      printf '#!/bin/sh\\nmake\\n' > build; chmod +x build; ln -s build link; echo hello > .gitignore
      git add .; git commit -qm 'Say something'; cd ..
      git clone -q origin clone; cd clone; ./link; same "$(./hello)" built
      same "$(git status --porcelain)" ''; same "$(stat -c %a build)" 755`,
      180_000,
    );
    await guest.sh('sync');
    expect(onHost('clone/hello')).toBe('built\n');
    expect(onHost('git', '-C', 'clone', 'status', '--porcelain')).toBe('');
    expect(onHost('git', '-C', 'clone', 'fsck', '--strict')).not.toContain('error');
    onHost('sh', '-c', 'echo more >> clone/.gitignore');
    const identity = ['-c', 'user.email=d@h', '-c', 'user.name=developer'];
    onHost('git', '-C', 'clone', ...identity, 'commit', '-qam', 'Ignore more');
    await freshly();
    await inGuest(`cd clone; same "$(git log --format=%an | paste -sd' ')" 'developer alice'
      same "$(git status --porcelain)" ''; git gc -q; git fsck --strict`);
    await guest.sh('sync');
    expect(onHost('git', '-C', 'clone', 'log', '--format=%an')).toBe('developer\nalice\n');
  });

  test('keeps modes that deny their owner, and no set-id bits or devices', async () => {
    await inGuest(`install -m 444 /dev/null locked; (umask 0777; echo content > sealed); same "$(stat -c %a sealed)" 0
      fails 'Permission denied' cat sealed; chmod 600 sealed; same "$(cat sealed)" content
      umask 222; echo readonly > r; same "$(stat -c %a r)" 444; fails 'Permission denied' sh -c 'echo x >> r'; umask 22
      mkdir -m 0 d; fails 'Permission denied' ls d; mv d e; chmod 755 e; echo x > e/f; chmod 0 e; chmod 755 e; rm -r e
      cp /bin/true t; chmod 6755 t; same "$(stat -c %a t)" 755
      mkdir -m 2775 shared; mkdir shared/below; same "$(stat -c %a shared/below)" 2755
      tar cf a.tar r locked shared; mkdir out; tar xpf a.tar -C out; same "$(stat -c %a out/r)" 444`);
    expect([bits('locked'), bits('r'), bits('t'), bits('shared')]).toEqual(['444', '444', '755', '2775']);
    await guest.sh(`${prelude} cd /mnt/p; chown 0:0 t; chown alice t 2>/dev/null || chown 1001 t
      same "$(stat -c %u:%g t)" 1000:1000; fails 'Operation not permitted' mknod n c 1 3
      fails 'not supported' setcap cap_net_raw+ep t; echo of root > t; fails 'Permission denied' sh -c 'echo x > r'
      chmod 644 r; echo x > r`);
    expect([lstatSync(at('t')).uid, existsSync(at('n'))]).toEqual([developer, false]);
    expect(readFileSync(at('r'), 'utf8')).toBe('x\n');
    writeFileSync(at('done'), '');
  });

  test('has a kernel without complaints', async () => {
    expect(await guest.complaints()).toEqual([]);
  });
});

test('npm installs in the guest what the host has packed, and its programs run on both', {
  timeout: 900_000,
}, async () => {
  mkdirSync(at('tool'));
  mkdirSync(at('app'));
  const manifest = (name: string, more: object) => JSON.stringify({ name, version: '1.0.0', ...more });
  writeFileSync(at('tool/package.json'), manifest('tool', { bin: { tool: 'tool.js' } }));
  writeFileSync(at('tool/tool.js'), '#!/usr/bin/env node\nconsole.log("tool runs")\n');
  const dependencies = { tool: 'file:../tool/tool-1.0.0.tgz' };
  writeFileSync(at('app/package.json'), manifest('app', { dependencies }));
  for (const name of ['tool', 'app']) execFileSync('chown', ['-R', `${developer}`, at(name)]);
  onHost('sh', '-c', 'cd tool && npm pack --silent');
  onHost('sh', '-c', 'cd app && npm install --package-lock-only --offline --silent --no-audit');
  await guest.mount({ trans: 'tcp', port: server.port, aname: 'project', path: '/mnt/p', cache: 'none' });
  await inGuest(
    `cd app; export PATH=/mnt/t:$PATH; node /mnt/t/npm/bin/npm-cli.js ci --offline --no-audit --no-fund
    same "$(node_modules/.bin/tool)" 'tool runs'`,
    800_000,
  );
  await guest.umount('/mnt/p');
  expect(readlinkSync(at('app/node_modules/.bin/tool'))).toBe('../tool/tool.js');
  expect(bits('app/node_modules/tool/tool.js')).toBe('755');
  expect(onHost('app/node_modules/.bin/tool')).toBe('tool runs\n');
});
