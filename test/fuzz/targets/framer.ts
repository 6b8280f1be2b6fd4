/** Cutting a stream into frames as it arrives, with both ways to fill the buffer, against cutting all of it at the end. */
import { FrameBuffer, FramingError } from '../../../src/protocol/frame-buffer.ts';
import { assert, assertEqual, Choices } from '../choices.ts';

const headerBytes = 7;

interface Stream {
  readonly bytes: Buffer;
  /** Ends of the chunks in which the stream arrives. */
  readonly cuts: readonly number[];
  /** The largest allowed frame after `index` frames: a Tversion changes it. */
  limit(index: number): number;
}

interface Outcome {
  readonly frames: readonly string[];
  readonly broken: boolean;
}

const sizes = [7, 8, 9, 23, 100, 4096, 65_535, 65_536, 65_537, 131_072, 0, 6, 0xffff_ffff, 200_000];

/** From the limit before Tversion to the largest msize. */
const limitBytes = [8192, 4096, 65_536, 131_072, 4 * 1024 * 1024];

function streamOf(choices: Choices): Stream {
  const limits = [choices.of(limitBytes), choices.of(limitBytes), choices.of(limitBytes)];
  const parts: Buffer[] = [];
  const cuts: number[] = [];
  let length = 0;
  const cut = () => void cuts.push(Math.min(length, (cuts.at(-1) ?? 0) + 1 + choices.below(70_000)));
  for (let count = choices.below(12); count > 0 && !choices.done; count--) {
    const size = choices.rarely(4) ? choices.u32() : choices.of(sizes);
    // A frame shorter than its size field ends early, or continues with the next bytes.
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

function isBroken(cut: () => void): boolean {
  try {
    cut();
    return false;
  } catch (error) {
    if (!(error instanceof FramingError)) throw error;
    return true;
  }
}

/** As the client receives: chunks are copied in. */
function byPush(stream: Stream): Outcome {
  const buffer = new FrameBuffer();
  const frames: string[] = [];
  const broken = isBroken(() => {
    for (const chunk of chunksOf(stream)) {
      const memory = Buffer.from(chunk);
      buffer.push(
        memory,
        () => stream.limit(frames.length),
        frame => void frames.push(print(frame)),
      );
      memory.fill(0xee);
    }
  });
  return { frames, broken };
}

/** As the server receives: read(2) fills the buffer. */
function byRoom(stream: Stream): Outcome {
  const buffer = new FrameBuffer();
  const frames: string[] = [];
  const broken = isBroken(() => {
    for (let rest of chunksOf(stream)) {
      while (rest.length > 0) {
        const room = buffer.room();
        assert(room.length > 0, () => 'no room');
        const count = rest.copy(room);
        room.fill(0xee, count);
        rest = rest.subarray(count);
        buffer.arrived(count);
        for (;;) {
          const type = buffer.nextType;
          if (!buffer.next(stream.limit(frames.length))) break;
          const frame = buffer.bytes.subarray(buffer.from, buffer.to);
          assert(type === frame[4], () => `the type ${frame[4]} was announced as ${type}`);
          frames.push(print(frame));
        }
      }
    }
  });
  return { frames, broken };
}

export function fuzz(data: Buffer): void {
  const stream = streamOf(new Choices(data));
  const wanted = cutAtOnce(stream);
  assertEqual(byPush(stream), wanted, () => 'push');
  assertEqual(byRoom(stream), wanted, () => 'room and arrived');
}
