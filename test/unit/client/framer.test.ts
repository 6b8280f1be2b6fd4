import { describe, expect, it } from 'vitest';
import { Framer } from '#client/framer.ts';
import { encodeRequest } from '#protocol/codec.ts';
import { ops } from '#protocol/operations.ts';
import { randomFrom, sampleRequest } from '../protocol/samples.ts';

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
  const framer = new Framer();
  const got: string[] = [];
  for (const chunk of chunks) {
    const memory = Buffer.from(chunk);
    const whole = framer.push(
      memory,
      () => bytesMax,
      frame => got.push(frame.toString('hex')),
    );
    if (!whole) throw new Error(framer.fault);
    memory.fill(0xee);
  }
  return got;
}

function header(size: number): Buffer {
  const bytes = Buffer.alloc(7);
  bytes.writeUInt32LE(size, 0);
  return bytes;
}

describe('the framer', () => {
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

  it('passes on a frame within one chunk as a view', () => {
    const views: Buffer[] = [];
    new Framer().push(
      stream,
      () => 65536,
      frame => views.push(frame),
    );
    expect(views.every(view => view.buffer === stream.buffer)).toBe(true);
  });

  it('passes on no frame before its last byte', () => {
    expect(cut([frames[0]!.subarray(0, -1)])).toEqual([]);
  });

  it('calls bytesMax for each frame, since Tversion changes it', () => {
    const framer = new Framer();
    let bytesMax = 30;
    const sizes: number[] = [];
    const chunk = Buffer.concat([resize(20), resize(100)]);
    const whole = framer.push(
      chunk,
      () => bytesMax,
      frame => {
        sizes.push(frame.length);
        bytesMax = 100;
      },
    );
    expect([whole, sizes]).toEqual([true, [20, 100]]);
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
      const framer = new Framer();
      const got: Buffer[] = [];
      const taken = chunks.map(chunk =>
        framer.push(
          chunk,
          () => bytesMax,
          frame => got.push(Buffer.from(frame)),
        ),
      );
      expect(taken.at(-1)).toBe(false);
      expect(framer.fault).toContain(`${size} bytes`);
      expect(got).toEqual([frames[0]]);
    }
  });

  it('accepts a frame of 7 bytes and one of exactly bytesMax', () => {
    expect(cut([resize(7), resize(8192)], 8192).map(hex => hex.length / 2)).toEqual([7, 8192]);
  });

  it('allocates for the bytes received, not for the announced size', () => {
    const before = process.memoryUsage().arrayBuffers;
    const framers = Array.from({ length: 100 }, () => new Framer());
    for (const framer of framers)
      framer.push(
        header(4_194_304).subarray(0, 5),
        () => 4_194_304,
        () => {},
      );
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_000_000);
    expect(framers.every(framer => framer.fault === undefined)).toBe(true);
  });
});

function resize(bytes: number): Buffer {
  const frame = Buffer.alloc(bytes);
  frame.writeUInt32LE(bytes, 0);
  return frame;
}
