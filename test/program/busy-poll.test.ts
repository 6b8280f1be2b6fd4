import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { files, type Running, start } from './cli-program.ts';

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));
const requests = 100;

/** Voluntary context switches of the serving thread: proc(5). */
function sleeps({ child: { pid } }: Running): number {
  const status = readFileSync(`/proc/${pid}/task/${pid}/status`, 'latin1');
  return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1]);
}

/** Processor time of that thread. */
function usedMs({ child: { pid } }: Running): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6;
}

/** Number of sleeps while requests arrive a millisecond apart. */
async function sleepsOf(parameters: string): Promise<number> {
  const server = start(['serve', files, '--listen', `tcp://127.0.0.1:0${parameters}`]);
  const client = await Client.connect({ port: await server.port() });
  const fid = await client.attach();
  const before = sleeps(server);
  for (let i = 0; i < requests; i++) {
    await client.getattr(fid);
    await pause(1);
  }
  const during = sleeps(server) - before;
  // Without requests it sleeps and does not wake.
  await pause(200);
  const used = usedMs(server);
  await pause(200);
  expect(usedMs(server) - used).toBeLessThan(100);
  await client.close();
  return during;
}

describe('busy-poll= of a socket', () => {
  it('keeps the server awake between one request and the next, and lets it sleep when none comes', async () => {
    // On a busy machine polling may end before the next request.
    expect(await sleepsOf('?busy-poll=10000')).toBeLessThan(requests / 2);
    expect(await sleepsOf('')).toBeGreaterThanOrEqual(requests / 2);
  });
});
