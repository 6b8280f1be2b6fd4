/** Both sides' ways to cut a stream into frames, against cutting the whole of it at once. */
import { Framer } from '../../../src/client/framer.ts';
import { FrameBuffer, FramingError } from '../../../src/transport/frame-buffer.ts';
import { Choices, must, mustEqual } from '../choices.ts';

const headerBytes = 7;

interface Stream {
  readonly bytes: Buffer;
  /** Where the chunks end that it comes in. */
  readonly cuts: readonly number[];
  /** The largest frame that is allowed, by how many came before: a version changes it. */
  limit(index: number): number;
}

interface Outcome {
  readonly frames: readonly string[];
  readonly broken: boolean;
}

const sizes = [7, 8, 9, 23, 100, 4096, 65_535, 65_536, 65_537, 131_072, 0, 6, 0xffff_ffff, 200_000];

/** From what holds before a version was agreed on to the largest msize. */
const limitBytes = [8192, 4096, 65_536, 131_072, 4 * 1024 * 1024];

function streamOf(choices: Choices): Stream {
  const limits = [choices.of(limitBytes), choices.of(limitBytes), choices.of(limitBytes)];
  const parts: Buffer[] = [];
  const cuts: number[] = [];
  let length = 0;
  const cut = () => void cuts.push(Math.min(length, (cuts.at(-1) ?? 0) + 1 + choices.below(70_000)));
  for (let count = choices.below(12); count > 0 && !choices.done; count--) {
    const size = choices.rarely(4) ? choices.u32() : choices.of(sizes);
    // What claims to be longer than it is ends in the middle, or goes on with what follows.
    const there = choices.rarely(8) ? choices.below(64) : Math.min(size, 140_000);
    const part = Buffer.alloc(Math.max(there, 4), count);
    part.writeUInt32LE(size, 0);
    if (part.length >= headerBytes) part.set([choices.byte(), choices.byte()], 4);
    parts.push(part);
    length += part.length;
    while (choices.rarely(3)) cut();
    if (choices.rarely(2)) cuts.push(Math.max(cuts.at(-1) ?? 0, length - choices.below(10)));
  }
  return { bytes: Buffer.concat(parts), cuts: [...cuts, length], limit: index => limits[index % 3]! };
}

function cutAtOnce({ bytes, limit }: Stream): Outcome {
  const frames: string[] = [];
  for (let at = 0; bytes.length - at >= 4; ) {
    const size = bytes.readUInt32LE(at);
    if (size < headerBytes || size > limit(frames.length)) return { frames, broken: true };
    if (size > bytes.length - at) break;
    frames.push(print(bytes.subarray(at, at + size)));
    at += size;
  }
  return { frames, broken: false };
}

function print(frame: Buffer): string {
  return `${frame.length} ${frame.toString('hex', 0, 9)} ${frame.at(-1)}`;
}

function chunksOf({ bytes, cuts }: Stream): Buffer[] {
  return cuts.map((end, i) => bytes.subarray(cuts[i - 1] ?? 0, end));
}

function byFramer(stream: Stream): Outcome {
  const framer = new Framer();
  const frames: string[] = [];
  let whole = true;
  for (const chunk of chunksOf(stream)) {
    const memory = Buffer.from(chunk);
    whole = framer.push(
      memory,
      () => stream.limit(frames.length),
      frame => void frames.push(print(frame)),
    );
    memory.fill(0xee);
  }
  must(whole === (framer.fault === undefined), () => 'the framer says one thing and its fault another');
  return { frames, broken: !whole };
}

function byInbox(stream: Stream): Outcome {
  const inbox = new FrameBuffer();
  const frames: string[] = [];
  try {
    for (let rest of chunksOf(stream)) {
      while (rest.length > 0) {
        const room = inbox.room();
        must(room.length > 0, () => 'no room');
        const count = rest.copy(room);
        room.fill(0xee, count);
        rest = rest.subarray(count);
        inbox.arrived(count);
        for (;;) {
          const type = inbox.nextType;
          if (!inbox.next(stream.limit(frames.length))) break;
          const frame = inbox.bytes.subarray(inbox.from, inbox.to);
          must(type === frame[4], () => `the type ${frame[4]} was announced as ${type}`);
          frames.push(print(frame));
        }
      }
    }
  } catch (error) {
    if (!(error instanceof FramingError)) throw error;
    return { frames, broken: true };
  }
  return { frames, broken: false };
}

export function fuzz(data: Buffer): void {
  const stream = streamOf(new Choices(data));
  const wanted = cutAtOnce(stream);
  mustEqual(byFramer(stream), wanted, () => 'the framer');
  mustEqual(byInbox(stream), wanted, () => 'the inbox');
}
