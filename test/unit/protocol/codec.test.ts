import { describe, expect, it } from 'vitest';
import { EINVAL, EOPNOTSUPP, Errno } from '#base/errno.ts';
import {
  decodeReply,
  decodeRequest,
  encodeError,
  encodeReply,
  encodeRequest,
  errnoOf,
  frameTag,
  frameType,
  Malformed,
  requestOp,
} from '#protocol/codec.ts';
import { type Draft, type Op, operations, ops, type RMessage } from '#protocol/operations.ts';
import { fault, faultOf, resized } from './faults.ts';
import { randomFrom, sampleReply, sampleRequest } from './samples.ts';
import { vectors } from './vectors.ts';

const out = Buffer.alloc(16384);

function reply(op: Op, tag: number, message: unknown): Buffer {
  const bytes = encodeReply(op, tag, message as RMessage<Op>, out, 5);
  return Buffer.from(out.subarray(5, 5 + bytes));
}

describe('the golden vectors', () => {
  it.each(vectors)(
    '%s%s with tag %i is decoded and encoded as in the manual',
    (side, op, tag, message, hex) => {
      const frame = Buffer.from(hex.replaceAll(' ', ''), 'hex');
      expect([frame.readUInt32LE(0), frameTag(frame)]).toEqual([frame.length, tag]);
      if (op === 'lerror') {
        expect(encodeError(tag, EOPNOTSUPP, out, 3)).toBe(frame.length);
        expect(out.subarray(3, 3 + frame.length)).toEqual(frame);
        expect(decodeReply('auth', frame)).toBe(EOPNOTSUPP);
      } else if (side === 'T') {
        expect(requestOp(frameType(frame))).toBe(op);
        expect(decodeRequest(op as Op, frame)).toEqual(message);
        expect(encodeRequest(op as Op, tag, message as Draft<Op>)).toEqual(frame);
      } else {
        expect(decodeReply(op as Op, frame)).toEqual(message);
        expect(reply(op as Op, tag, message)).toEqual(frame);
      }
    },
  );

  it('cover every message except Rauth, which the server never sends', () => {
    const covered = new Set(vectors.map(([side, name]) => side + name));
    const all = ops.flatMap(op => [`T${op}`, `R${op}`]);
    expect(all.filter(name => !covered.has(name))).toEqual(['Rauth']);
  });
});

describe.each(ops)('the codec of %s', op => {
  const random = randomFrom(operations[op].type);

  it('decodes what it encoded', () => {
    for (let n = 0; n < 50; n++) {
      const request = sampleRequest(op, random);
      const frame = encodeRequest(op, n, request);
      expect([frame.readUInt32LE(0), frameType(frame), frameTag(frame)]).toEqual([
        frame.length,
        operations[op].type,
        n,
      ]);
      expect(decodeRequest(op, frame)).toEqual(request);
      const answer = sampleReply(op, random);
      expect(decodeReply(op, reply(op, n, answer))).toEqual(answer);
    }
  });

  it('rejects truncated requests and bytes after the last field', () => {
    const frame = encodeRequest(op, 1, sampleRequest(op, random));
    for (let bytes = 7; bytes < frame.length; bytes++) {
      // Old clients omit the last field of Tfsync.
      const short = op === 'fsync' && bytes === 11 ? 'taken' : 'EINVAL';
      expect(fault(op, resized(frame, bytes))).toBe(short);
    }
    expect(fault(op, resized(frame, frame.length + 1))).toBe('EINVAL');
  });

  it('rejects truncated replies and bytes after the last field', () => {
    const frame = reply(op, 1, sampleReply(op, random));
    for (let bytes = 7; bytes < frame.length; bytes++)
      expect(() => decodeReply(op, resized(frame, bytes))).toThrow(Malformed);
    expect(() => decodeReply(op, resized(frame, frame.length + 1))).toThrow(Malformed);
  });

  it('throws only Malformed or an Errno for random bytes', () => {
    const frame = encodeRequest(op, 1, sampleRequest(op, random));
    for (let n = 0; n < 200; n++) {
      const broken = Buffer.from(frame);
      for (let k = random(4); k >= 0; k--)
        if (broken.length > 7) broken[7 + random(broken.length - 7)] = random(256);
      expect(fault(op, broken)).toMatch(/^(taken|E[A-Z]+)$/);
    }
  });
});

describe('a type that is not a request', () => {
  it('has no operation: replies, legacy messages, unknown numbers', () => {
    const types = ops.map(op => operations[op].type as number);
    for (let type = 0; type < 256; type++) expect(requestOp(type) !== undefined).toBe(types.includes(type));
    for (const type of [6, 7, 101, 106, 112, 114, 124, 126, 200]) expect(requestOp(type)).toBeUndefined();
  });
});

describe('a wrong length', () => {
  it('of a string beyond the end of the frame is rejected, even within the buffer', () => {
    const memory = Buffer.alloc(70_000, 'x');
    const frame = encodeRequest('mkdir', 1, { dfid: 1, name: 'abc', mode: 0, gid: 0 });
    for (const length of [12, 13, 255, 65535]) {
      frame.copy(memory);
      memory.writeUInt16LE(length, 11);
      expect(fault('mkdir', memory.subarray(0, frame.length))).toBe('EINVAL');
      expect(fault('mkdir', memory)).toBe('EINVAL');
    }
  });

  it('of Twalk: 16 names are accepted, 17 and 65535 are rejected', () => {
    const walk = (count: number) => ({ fid: 1, newfid: 2, wname: new Array<string>(count).fill('a') });
    expect(faultOf('walk', walk(16))).toBe('taken');
    expect(faultOf('walk', walk(17))).toBe('EINVAL');
    const frame = encodeRequest('walk', 1, walk(2));
    for (const count of [1, 3, 17, 65535]) {
      frame.writeUInt16LE(count, 15);
      expect(fault('walk', frame)).toBe('EINVAL');
    }
  });

  it('of Twrite: the count must be the rest of the frame', () => {
    const frame = encodeRequest('write', 1, {
      fid: 1,
      offset: 0,
      data: { count: 3, bytes: Buffer.from('abc') },
    });
    for (const count of [0, 2, 4, 0x7fff_ffff, 0x8000_0000, 0xffff_fffd, 0xffff_ffff]) {
      frame.writeUInt32LE(count, 19);
      expect(fault('write', frame)).toBe('EINVAL');
    }
    frame.writeUInt32LE(3, 19);
    expect(fault('write', frame)).toBe('taken');
  });
});

describe('the payload', () => {
  it('of Twrite is a view of the frame, not a copy', () => {
    const frame = encodeRequest('write', 1, {
      fid: 1,
      offset: 0,
      data: { count: 3, bytes: Buffer.from('abc') },
    });
    const { data } = decodeRequest('write', frame);
    frame[23] = 0x58;
    expect(Buffer.from(data.bytes!).toString()).toBe('Xbc');
  });

  it('of Twrite may be in other memory: only the head is decoded, and its count checked against size[4]', () => {
    const head = encodeRequest('write', 9, { fid: 1, offset: 7, data: { count: 0 } });
    head.writeUInt32LE(23 + 500_000, 0);
    head.writeUInt32LE(500_000, 19);
    expect(decodeRequest('write', head)).toEqual({ fid: 1, offset: 7, data: { count: 500_000 } });
    head.writeUInt32LE(500_001, 19);
    expect(fault('write', head)).toBe('EINVAL');
    expect(fault('write', head.subarray(0, 22))).toBe('EINVAL');
  });

  it('of Rread may be in place already: only the head is written', () => {
    out.fill(0x2e);
    const bytes = encodeReply('read', 3, { data: { count: 4096 } }, out, 100);
    expect(bytes).toBe(11);
    expect(out.toString('hex', 100, 112)).toBe('0b100000750300001000002e');
  });

  it('of Rread is copied up to its count from larger memory', () => {
    const frame = reply('read', 3, { data: { count: 2, bytes: Buffer.from('hello') } });
    expect(frame.toString('latin1', 11)).toBe('he');
    expect(frame.readUInt32LE(0)).toBe(13);
  });

  it('of Rgetattr is copied from a larger record, or not at all if it is in place', () => {
    const attr = Buffer.alloc(176, 7);
    expect(reply('getattr', 1, { attr })).toHaveLength(160);
    const place = Buffer.alloc(200, 9);
    expect(encodeReply('getattr', 1, { attr: place.subarray(7, 183) }, place, 0)).toBe(160);
    expect(place.subarray(7, 200)).toEqual(Buffer.alloc(193, 9));
    expect(() => reply('getattr', 1, { attr: Buffer.alloc(152) })).toThrow(RangeError);
  });
});

describe('a 64-bit value', () => {
  function at(op: 'read' | 'write', offset: bigint): Buffer {
    const frame =
      op === 'read'
        ? encodeRequest('read', 1, { fid: 1, offset: 0, count: 1 })
        : encodeRequest('write', 1, { fid: 1, offset: 0, data: { count: 0 } });
    frame.writeBigUInt64LE(BigInt.asUintN(64, offset), 11);
    return frame;
  }
  const inexact = [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n];

  it('that is an offset is exact; EINVAL if negative in the kernel', () => {
    for (const op of ['read', 'write'] as const) {
      for (const offset of [0, 1, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER])
        expect(decodeRequest(op, at(op, BigInt(offset))).offset).toBe(offset);
      for (const offset of [2n ** 63n, -1n]) expect(fault(op, at(op, offset))).toBe('EINVAL');
    }
  });

  it('from 2^53 is EFBIG as a write offset and past the end of file as a read offset', () => {
    for (const offset of inexact) {
      expect(fault('write', at('write', offset))).toBe('EFBIG');
      expect(decodeRequest('read', at('read', offset)).offset).toBe(Number.MAX_SAFE_INTEGER);
    }
  });

  it('from 2^53 is EOVERFLOW as the start of a lock, and the end of the file as its length', () => {
    const frame = encodeRequest('lock', 1, {
      fid: 1,
      type: 0,
      flags: 0,
      start: 0,
      length: 0,
      proc_id: 1,
      client_id: '',
    });
    const start = 16;
    const length = 24;
    for (const at of [start, length]) {
      const other = Buffer.from(frame);
      other.writeBigUInt64LE(2n ** 63n, at);
      expect(fault('lock', other)).toBe('EINVAL');
    }
    const far = Buffer.from(frame);
    far.writeBigUInt64LE(2n ** 53n, start);
    expect(fault('lock', far)).toBe('EOVERFLOW');
    const long = Buffer.from(frame);
    for (const bytes of [2n ** 53n, 2n ** 63n - 1n]) {
      long.writeBigUInt64LE(bytes, length);
      expect(decodeRequest('lock', long).length).toBe(0);
    }
  });

  const noChange = { valid: 0, mode: 0, uid: 0, gid: 0, size: 0, mtime_sec: 0, mtime_nsec: 0 };

  it('that is a time survives on either side of 1970, and is the nearest number where it cannot be exact', () => {
    for (const atime_sec of [0, -1, -2_208_988_800, 4_294_967_296, 2 ** 53 - 1, 1 - 2 ** 53]) {
      const frame = encodeRequest('setattr', 1, { ...noChange, fid: 1, atime_sec, atime_nsec: 5 });
      expect(frame.readBigInt64LE(35)).toBe(BigInt(atime_sec));
      expect(decodeRequest('setattr', frame)).toMatchObject({ atime_sec, atime_nsec: 5, mtime_sec: 0 });
    }
    const frame = encodeRequest('setattr', 1, { ...noChange, fid: 1, atime_sec: 0, atime_nsec: 0 });
    for (const atime_sec of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 53n), -(2n ** 63n)]) {
      frame.writeBigInt64LE(atime_sec, 35);
      expect(decodeRequest('setattr', frame).atime_sec).toBe(Number(atime_sec));
    }
  });

  it('whose bit in valid is not set may be uninitialised', () => {
    const frame = encodeRequest('setattr', 1, { ...noChange, fid: 1, atime_sec: 0, atime_nsec: 0 });
    frame.fill(0xff, 27);
    expect(fault('setattr', frame)).toBe('taken');
    expect(decodeRequest('setattr', frame).size).toEqual({ low: 0xffff_ffff, high: 0xffff_ffff });
  });

  it('that is opaque keeps all its bits', () => {
    const cookie = { low: 0xfedc_ba98, high: 0x7654_3210 };
    const frame = encodeRequest('readdir', 1, { fid: 1, offset: cookie, count: 1 });
    expect(frame.readBigUInt64LE(11)).toBe(0x7654_3210_fedc_ba98n);
    expect(decodeRequest('readdir', frame).offset).toEqual(cookie);
    const number = encodeRequest('readdir', 1, { fid: 1, offset: 2 ** 40 + 3, count: 1 });
    expect(decodeRequest('readdir', number).offset).toEqual({ low: 3, high: 256 });
    for (const offset of [-1, 1.5, 2 ** 53])
      expect(() => encodeRequest('readdir', 1, { fid: 1, offset, count: 1 })).toThrow(RangeError);
  });
});

describe('Tfsync', () => {
  it('without its last field, as old clients send it, has datasync 0', () => {
    const frame = encodeRequest('fsync', 1, { fid: 3, datasync: 1 });
    expect(decodeRequest('fsync', resized(frame, 11))).toEqual({ fid: 3, datasync: 0 });
  });
});

describe('a reply', () => {
  it('of a type that does not match the request is malformed', () => {
    const frame = reply('clunk', 1, {});
    let thrown: unknown;
    try {
      decodeReply('walk', frame);
    } catch (error) {
      thrown = error;
    }
    expect(errnoOf(thrown)).toBe(EINVAL);
  });

  it('Rlerror is malformed if truncated', () => {
    const frame = Buffer.from(out.subarray(0, encodeError(1, EINVAL, out)));
    for (const bytes of [7, 10, 12])
      expect(() => decodeReply('clunk', resized(frame, bytes))).toThrow(Malformed);
  });

  it('with an errno outside 1…4095 becomes EIO', () => {
    const bytes = encodeError(1, EINVAL, out, 0);
    const frame = Buffer.from(out.subarray(0, bytes));
    for (const ecode of [0, 4096, 0xffff_ffea]) {
      frame.writeUInt32LE(ecode, 7);
      expect(decodeReply('clunk', frame)).toBe(Errno.of(5));
    }
  });

  it('that does not fit its field or memory throws RangeError', () => {
    expect(() => reply('lock', 1, { status: 256 })).toThrow(RangeError);
    expect(() => reply('readlink', 1, { target: 'x'.repeat(65536) })).toThrow(RangeError);
    expect(() => encodeReply('readlink', 1, { target: 'x'.repeat(100) }, Buffer.alloc(50), 0)).toThrow(
      RangeError,
    );
  });
});
