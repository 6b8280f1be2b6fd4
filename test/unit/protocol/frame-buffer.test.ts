import { describe, expect, it } from 'vitest';
import { encodeRequest } from '#protocol/codec.ts';
import { FrameBuffer, FramingError } from '#protocol/frame-buffer.ts';
import { ops } from '#protocol/operations.ts';
import { randomFrom, sampleRequest } from './samples.ts';

const random = randomFrom(9);
const frames = Array.from({ length: 50 }, (_, n) => {
  const op = ops[n % ops.length]!;
  return encodeRequest(op, n, sampleRequest(op, random));
});
const hexes = frames.map(frame => frame.toString('hex'));
const stream = Buffer.concat(frames);
const small = Buffer.concat(frames.slice(0, 4));

/** The frames of these chunks in hexadecimal. Overwrites each chunk after `push`. */
function cut(chunks: readonly Buffer[], bytesMax = 65536): string[] {
  const buffer = new FrameBuffer();
  const got: string[] = [];
  for (const chunk of chunks) {
    const memory = Buffer.from(chunk);
    buffer.push(
      memory,
      () => bytesMax,
      frame => got.push(frame.toString('hex')),
    );
    memory.fill(0xee);
  }
  return got;
}

function header(size: number): Buffer {
  const bytes = Buffer.alloc(7);
  bytes.writeUInt32LE(size, 0);
  return bytes;
}

describe('a frame buffer', () => {
  it('splits one chunk into fifty frames', () => {
    expect(cut([stream])).toEqual(hexes);
  });

  it('splits a stream that arrives byte by byte', () => {
    expect(cut(Array.from(stream, (_, at) => stream.subarray(at, at + 1)))).toEqual(hexes);
  });

  it('splits a stream cut at any place, including inside size[4]', () => {
    for (let at = 0; at <= small.length; at++)
      expect(cut([small.subarray(0, at), small.subarray(at)])).toEqual(hexes.slice(0, 4));
  });

  it('splits chunks of any length', () => {
    for (let run = 0; run < 50; run++) {
      const chunks: Buffer[] = [];
      for (let at = 0; at < stream.length; ) {
        const bytes = 1 + random(run < 25 ? 9 : 900);
        chunks.push(stream.subarray(at, at + bytes));
        at += bytes;
      }
      expect(cut(chunks)).toEqual(hexes);
    }
  });

  it('keeps a frame larger than its first memory', () => {
    const large = resize(300_000).fill(7, 4);
    expect(cut([large.subarray(0, 100_000), large.subarray(100_000)], 300_000)).toEqual([
      large.toString('hex'),
    ]);
  });

  it('does not move a frame before the next bytes are received', () => {
    const buffer = new FrameBuffer();
    buffer.arrived(stream.copy(buffer.room()));
    const views: Buffer[] = [];
    while (buffer.next(65536)) views.push(buffer.bytes.subarray(buffer.from, buffer.to));
    expect(views.map(view => view.toString('hex'))).toEqual(hexes);
    expect(views.every(view => view.buffer === buffer.bytes.buffer)).toBe(true);
    expect(buffer.partial).toBe(false);
  });

  it('passes on no frame before its last byte', () => {
    expect(cut([frames[0]!.subarray(0, -1)])).toEqual([]);
  });

  it('calls bytesMax for each frame, since Tversion changes it', () => {
    let bytesMax = 30;
    const sizes: number[] = [];
    new FrameBuffer().push(
      Buffer.concat([resize(20), resize(100)]),
      () => bytesMax,
      frame => {
        sizes.push(frame.length);
        bytesMax = 100;
      },
    );
    expect(sizes).toEqual([20, 100]);
  });

  it.each([
    [0, 8192],
    [6, 8192],
    [8193, 8192],
    [0xffff_ffff, 8192],
    [0x2054_4547, 1_048_576],
  ])('rejects a size of %i where %i bytes are allowed, in one chunk and byte by byte', (size, bytesMax) => {
    const bytes = Buffer.concat([frames[0]!, header(size), frames[1]!]);
    const whole = [bytes];
    const split = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
    for (const chunks of [whole, split]) {
      const buffer = new FrameBuffer();
      const got: Buffer[] = [];
      const push = () => {
        for (const chunk of chunks)
          buffer.push(
            chunk,
            () => bytesMax,
            frame => got.push(Buffer.from(frame)),
          );
      };
      expect(push).toThrow(FramingError);
      expect(push).toThrow(`${size} bytes`);
      expect(got).toEqual([frames[0]]);
    }
  });

  it('accepts a frame of 7 bytes and one of exactly bytesMax', () => {
    expect(cut([resize(7), resize(8192)], 8192).map(hex => hex.length / 2)).toEqual([7, 8192]);
  });

  it('refuses a size before the rest of the frame is there', () => {
    const buffer = new FrameBuffer();
    buffer.arrived(header(8193).subarray(0, 4).copy(buffer.room()));
    expect(() => buffer.next(8192)).toThrow(FramingError);
  });

  it('allocates for an announced size that is allowed, and once', () => {
    const before = process.memoryUsage().arrayBuffers;
    const buffer = new FrameBuffer();
    const bytesMax = () => 4_194_304;
    buffer.push(header(4_194_304), bytesMax, () => {});
    for (let at = 7; at < 4_194_304 - 65536; at += 65536)
      buffer.push(Buffer.alloc(65536), bytesMax, () => {});
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 << 20);
  });
});

function resize(bytes: number): Buffer {
  const frame = Buffer.alloc(bytes);
  frame.writeUInt32LE(bytes, 0);
  return frame;
}
