import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';
import { childrenOf, type Process, processOf } from '../support/processes.ts';

const rdwr = 2;

/** A server's children, and theirs. Those of `ninepd-groups` end when they notice that the server has. */
function descendants(pid: number): Process[] {
  const children = childrenOf(pid).filter(({ name }) => name !== 'ninepd-groups');
  return children.flatMap(child => [child, ...descendants(child.pid)]);
}

describe('a server that ends in order', () => {
  // A process that is left has the server's mount namespace, and with it the file systems of the exports in use.
  it.each([
    ['mapped', 'in the sandbox', []],
    ['passthrough', 'in the sandbox', []],
    ['mapped', 'without a sandbox', ['--sandbox', 'off']],
    ['mapped', 'with workers', ['--workers', '2']],
  ] as const)('leaves no process: %s %s', async (securityModel, _how, args) => {
    const path = mkdtempSync(join(tmpdir(), 'ninepd-stop-'));
    const server = await Ninepd.start({ exports: [{ path, name: 'files', securityModel }], args: [...args] });
    const client = await Client.connect({ port: server.port });
    await client.lcreate(await client.attach('files', 0), 'file', rdwr, 0o644, 0);
    const processes = descendants(server.pid);
    expect(processes.map(({ name }) => name)).toContain('ninepd-closer');
    expect(await server.stop()).toBe(0);
    expect(processes.filter(({ pid, name }) => processOf(pid)?.name === name)).toEqual([]);
    rmSync(path, { recursive: true });
  });
});
