/** Arbitrary monitor messages: another device is not affected, and the socket stays usable. */
import { closeFd } from '../../../src/host/fd.ts';
import { eventfd } from '../../support/eventfd.ts';
import { Frontend, Monitor, request, u32 } from '../../support/vhost-frontend.ts';
import { assert, Choices } from '../choices.ts';
import { turn, withNeighbour } from '../vhost-neighbour.ts';

const requests = [...Object.values(request), 6, 20, 99];
const stepsPerMonitor = 12;
const waitMsMax = 3000;

function payloadOf(choices: Choices): Buffer {
  const payload = Buffer.alloc(choices.of([0, 8, 8, 8, 12, 40, 40, 72]));
  for (let i = choices.below(6); i > 0 && payload.length > 0; i--)
    payload[choices.below(payload.length)] = choices.byte();
  return payload;
}

async function oneMonitor(path: string, choices: Choices): Promise<void> {
  await beServed(path);
  const guest = await Frontend.connect(path);
  const event = eventfd();
  try {
    await turn();
    if (choices.rarely(2)) await guest.start();
    for (let i = 0; i < stepsPerMonitor && !choices.done; i++) {
      const payload = payloadOf(choices);
      const descriptors = [guest.file, event, guest.monitor.descriptor].slice(0, choices.below(3));
      const flags = choices.rarely(20) ? choices.below(16) : 1 + 8 * choices.below(2);
      const bytes = Buffer.concat([u32(choices.of(requests), flags, payload.length), payload]);
      guest.monitor.raw(
        choices.rarely(30) ? bytes.subarray(0, choices.below(bytes.length)) : bytes,
        descriptors,
      );
      if (choices.rarely(4)) guest.kick();
      if (choices.rarely(2)) await turn();
    }
  } finally {
    closeFd(event);
    guest.close();
  }
  await turn();
}

/** A correct monitor is served as soon as the previous one has been seen to disconnect. */
async function beServed(path: string): Promise<void> {
  const end = performance.now() + waitMsMax;
  for (;;) {
    const monitor = await Monitor.connect(path);
    try {
      const queues = await monitor.ask(request.getQueueNum);
      assert(queues.readUInt8(0) === 1, () => 'a device without a queue');
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
      await turn();
    } finally {
      monitor.close();
    }
  }
}

export async function fuzz(data: Buffer): Promise<void> {
  const choices = new Choices(data);
  await withNeighbour(async served => {
    do await oneMonitor(served.path, choices);
    while (!choices.done);
    await beServed(served.path);
  });
}
