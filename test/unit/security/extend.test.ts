import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import * as ninepd from '#index.ts';
import type { Server } from '#server.ts';

const { Client, extendModel, mapped, none, passthrough } = ninepd;
const guide = readFileSync(fileURLToPath(new URL('../../../docs/backends.md', import.meta.url)), 'utf8');

describe('a model that extends another', () => {
  it('has all members of the other, and the changes', () => {
    for (const base of [
      mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined),
      passthrough(() => undefined),
      none({ owner: 'caller', chown: 'refuse', clearsSetIds: false }),
    ]) {
      const extended = extendModel(base, { name: 'extended' });
      expect(extended.name).toBe('extended');
      expect(extended.reservedPrefix).toBe(base.reservedPrefix);
      for (let at: object = base; at !== Object.prototype; at = Object.getPrototypeOf(at))
        for (const name of Object.getOwnPropertyNames(at))
          if (name !== 'constructor') expect(extended, name).toHaveProperty([name]);
    }
  });

  it('is as in docs/backends.md', async () => {
    const code = /```js\n(import [^\n]*extendModel[\s\S]*?)```/.exec(guide)![1]!;
    const dir = mkdtempSync(join(tmpdir(), 'ninepd-extend-'));
    const text = code
      .replace(/^import (.*) from 'ninepd';$/m, 'const $1 = ninepd;')
      .replace("'/srv/files'", JSON.stringify(dir));
    const run = new Function('ninepd', `return (async () => { ${text} return server; })()`);
    const server = (await run(ninepd)) as Server;
    const uri = await server.listen('tcp://127.0.0.1:0');
    const client = await Client.connect({ port: Number(/\d+$/.exec(uri)![0]) });
    const top = await client.attach('', 0);
    await client.mkdir(top, 'd');
    await expect(client.symlink(top, 's', 'target')).rejects.toMatchObject({ name: 'EPERM' });
    expect((await client.getattr(await client.walk(top, 'd'))).uid).toBe(0);
    await client.close();
    await server.close();
    rmSync(dir, { recursive: true });
  });
});
