// The server whose memory `fids.mjs` measures: node --expose-gc fid-server.mjs DIRECTORY MODEL. Sends its URI, then its memory
// in reply to every message.
import { setTimeout } from 'node:timers/promises';
import { Server } from '../dist/index.js';

const [directory, securityModel] = process.argv.slice(2);
const server = await Server.open({ exports: [{ path: directory, securityModel }] });

async function memory() {
  // Finalizers free memory in a second collection.
  for (let round = 0; round < 3; round++) {
    global.gc();
    await setTimeout(20);
  }
  const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
  return { rss, heap: heapUsed + external + arrayBuffers };
}

process.on('message', async () => process.send(await memory()));
process.on('disconnect', () => process.exit(0));
process.send({ uri: await server.listen('tcp://127.0.0.1:0') });
