import { spawnSync } from 'node:child_process';
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EACCES } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';
import { childrenOf } from '../support/processes.ts';
import { Stalling } from '../support/stalling/stalling.ts';

const rdonly = 0;
const rdwr = 2;
const directoryFlag = 0o200000;

/** Users unknown to the host have equal gids and no groups. */
const users = [0, 70_001, 70_002, 0, 70_002, 70_001];

describe.each([
  ['the export itself', 'mount', ''],
  ['mounted in the export', 'files', 'below/'],
])('passthrough on a FUSE file system that is %s', (_where, exported, prefix) => {
  describe.each([
    ['in the sandbox', []],
    ['without a sandbox', ['--sandbox', 'off']],
  ])('%s', (_how, args) => {
    let top: string;
    let mount: Stalling;
    let server: Ninepd;
    const on = (...path: string[]) => join(mount.directory, ...path);

    beforeAll(async () => {
      top = mkdtempSync(join(tmpdir(), 'ninepd-fuse-'));
      chmodSync(top, 0o755);
      const at = prefix === '' ? join(top, exported) : join(top, exported, 'below');
      mkdirSync(at, { recursive: true });
      mount = await Stalling.mount(at);
      server = await Ninepd.start({
        exports: [
          {
            path: join(top, exported),
            name: 'files',
            securityModel: 'passthrough',
            settings: ['check=host'],
          },
        ],
        args,
      });
    });
    afterAll(async () => {
      await server.stop();
      await mount.end();
      rmSync(top, { recursive: true });
    });

    it('makes, opens, links, marks and lists as each user, one after the other', async () => {
      const client = await Client.connect({ port: server.port });
      for (const [turn, uid] of users.entries()) {
        const root = await client.attach('files', uid);
        const top = await client.walk(root, prefix.slice(0, -1));
        const gid = uid === 0 ? 0 : 65534;
        const [file, directory, other] = [`f${turn}`, `d${turn}`, `l${turn}`];

        const made = await client.walk(top);
        await client.lcreate(made, file, rdwr, 0o640, gid);
        expect(await client.write(made, 0, Buffer.from(file))).toBe(file.length);
        await client.clunk(made);
        expect(lstatSync(on(file))).toMatchObject({ uid, gid, size: file.length });

        const held = await client.walk(top, file);
        const open = await client.walk(held);
        await client.lopen(open, rdwr);
        expect((await client.read(open, 0, 100)).toString()).toBe(file);
        await client.setxattr(held, 'user.turn', Buffer.from([turn]));
        expect(await client.getxattr(held, 'user.turn')).toEqual(Buffer.from([turn]));
        await client.link(top, held, other);
        expect(lstatSync(on(other)).nlink).toBe(2);
        await client.clunk(open, held);

        await client.mkdir(top, directory, 0o755, gid);
        expect(lstatSync(on(directory))).toMatchObject({ uid, gid });
        const inner = await client.walk(top, directory);
        await client.lcreate(await client.walk(inner), 'inside', rdwr, 0o600, gid);
        await client.lopen(inner, rdonly | directoryFlag);
        expect((await client.readdir(inner)).map(({ name }) => name)).toContain('inside');
        await client.renameat(top, other, top, file);
        await client.unlinkat(top, file);
        expect(readdirSync(on())).not.toContain(file);
      }
      await client.close();
    });

    it('keeps users from what is not theirs', async () => {
      const client = await Client.connect({ port: server.port });
      const [own, foreign] = [await client.attach('files', 70_001), await client.attach('files', 70_002)];
      const name = `${prefix}private`.split('/');
      const made = await client.walk(own, name.slice(0, -1));
      await client.lcreate(made, 'private', rdwr, 0o600, 65534);
      const found = await client.walk(foreign, name);
      await expect(client.lopen(found, rdonly)).rejects.toBe(EACCES);
      await client.close();
    });

    it('gives a user of the host no rights over the processes that run as that user', async () => {
      const client = await Client.connect({ port: server.port });
      const root = await client.attach('files', 70_001);
      const made = await client.walk(root, prefix.slice(0, -1));
      await client.lcreate(made, 'rights', rdwr, 0o600, 65534);
      const processes = [server.pid, ...childrenOf(server.pid).map(({ pid }) => pid)];
      expect(processes.length).toBeGreaterThan(2);
      const attempts = processes.flatMap(pid => [
        `kill -0 ${pid}`,
        `readlink /proc/${pid}/fd/0`,
        `ls /proc/${pid}/fd`,
        `cat /proc/${pid}/environ`,
        `head -c 1 /proc/${pid}/mem`,
        `cat /proc/${pid}/maps`,
      ]);
      const script = attempts.map(one => `if ${one} >/dev/null 2>&1; then echo '${one}'; fi`).join('\n');
      const asUser = ['--reuid=70001', '--regid=65534', '--clear-groups'];
      const tried = spawnSync('setpriv', [...asUser, 'sh', '-c', `${script}\necho tried`], {
        encoding: 'utf8',
      });
      expect(tried).toMatchObject({ stdout: 'tried\n', stderr: '' });
      await client.close();
    });
  });
});
