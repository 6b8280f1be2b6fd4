import { expect, it } from 'vitest';
import { Errno } from '#base/errno.ts';
import * as kinds from '#protocol/kinds.ts';
import { type Op, operations, ops } from '#protocol/operations.ts';
import {
  fieldsOf,
  nameFields,
  randomBody,
  randomBytes,
  refusalsIn,
  rightBody,
  type State,
  states,
} from './hostile-bodies.ts';
import { body, frame, NOTAG, type RawConnection, type Reply } from './raw-connection.ts';
import { conform, type ServerHarness } from './server-harness.ts';

const nameOf = ({ ecode }: Reply) => (ecode === 0 ? 'none' : Errno.of(ecode).name);

/** A connection that has a fid in each state. */
async function hostile(harness: ServerHarness): Promise<RawConnection> {
  const { c, dir, name } = await harness.begin();
  const file = await c.file(dir, 'f', 'content');
  const { xattrs } = harness.backend.differs;
  if (xattrs !== 'none') await c.setXattr(file, 'user.a', 'value');
  const wire = await harness.wire();
  const succeed = async (op: Op, fields: Parameters<RawConnection['request']>[1]) => {
    const reply = await wire.request(op, fields);
    if (reply.ecode !== 0) throw new Error(`${op}: ${nameOf(reply)}`);
  };
  await succeed('walk', { fid: 0, newfid: states.dir, wname: [name] });
  await succeed('walk', { fid: 0, newfid: states.openDir, wname: [name] });
  await succeed('lopen', { fid: states.openDir, flags: 0 });
  await succeed('walk', { fid: 0, newfid: states.file, wname: [name, 'f'] });
  await succeed('walk', { fid: 0, newfid: states.openFile, wname: [name, 'f'] });
  await succeed('lopen', { fid: states.openFile, flags: 2 });
  await succeed('xattrwalk', {
    fid: states.file,
    newfid: states.xattrRead,
    name: xattrs === 'none' ? '' : 'user.a',
  });
  await succeed('walk', { fid: 0, newfid: states.xattrWrite, wname: [name, 'f'] });
  await succeed('xattrcreate', { fid: states.xattrWrite, name: 'user.b', attr_size: 4, flags: 0 });
  return wire;
}

/** Checks that refused requests have changed nothing: every fid is as before. */
async function allAsBefore(wire: RawConnection, harness: ServerHarness): Promise<void> {
  for (const state of ['root', 'dir', 'openDir', 'file', 'openFile'] as const)
    expect([state, (await wire.request('getattr', { fid: states[state] })).type]).toEqual([state, 25]);
  const read = await wire.request('read', { fid: states.openFile, offset: 0, count: 100 });
  expect(read.body.toString('latin1', 4)).toBe('content');
  const listed = await wire.request('readdir', { fid: states.openDir, offset: 0, count: 1000 });
  expect(listed.body.length - 4).toBe(25 + 26 + 25);
  const value = await wire.request('read', { fid: states.xattrRead, offset: 0, count: 100 });
  const { xattrs } = harness.backend.differs;
  expect(value.body.toString('latin1', 4)).toBe(xattrs === 'none' ? '' : 'value');
  expect((await wire.request('write', { fid: states.xattrWrite, data: Buffer.from('four') })).type).toBe(119);
  expect(nameOf(await wire.request('clunk', { fid: states.xattrWrite }))).toBe(
    xattrs === 'none' ? 'EOPNOTSUPP' : 'none',
  );
}

conform('a hostile client', harness => {
  it('gets EBADF for every fid that is unknown, in every message', async () => {
    const wire = await hostile(harness);
    for (const [op, field] of fieldsOf(kinds.fid)) {
      for (const unknown of [4711, 0xffff_ffff, 0x8000_0000]) {
        // Other fids are a file, so that nothing is created even if the unknown fid were accepted.
        const reply = await wire.request(op, { ...rightBody(op, states.dir), [field]: unknown });
        expect([op, field, nameOf(reply)]).toEqual([op, field, 'EBADF']);
      }
    }
    await allAsBefore(wire, harness);
  });

  it('gets nowhere with a fid in the wrong state', async () => {
    const wire = await hostile(harness);
    for (const [op, field] of fieldsOf(kinds.fid)) {
      for (const [state, fid] of Object.entries(states) as [State, number][]) {
        const expected = refusalsIn(state, op, field);
        if (!expected) continue;
        const reply = await wire.request(op, { ...rightBody(op, states.dir), [field]: fid });
        expect([op, field, state, expected.includes(nameOf(reply)) || nameOf(reply)]).toEqual([
          op,
          field,
          state,
          true,
        ]);
      }
    }
    await allAsBefore(wire, harness);
  });

  it('cannot have a new fid under a number in use, nor as NOFID', async () => {
    const wire = await hostile(harness);
    for (const [op, field] of fieldsOf(kinds.newfid)) {
      for (const used of [...Object.values(states).filter(fid => fid !== states.dir), 0xffff_ffff]) {
        const fields = { ...rightBody(op, states.dir), wname: [], name: '', aname: '', [field]: used };
        expect([op, nameOf(await wire.request(op, fields))]).toEqual([
          op,
          expect.stringMatching(/EBADF|EINVAL|EOPNOTSUPP/),
        ]);
      }
    }
    await allAsBefore(wire, harness);
  });

  it('cannot use what is no name in any field that is one', async () => {
    const wire = await hostile(harness);
    for (const [op, field] of nameFields) {
      for (const name of [
        '',
        '.',
        '..',
        'a/b',
        '/',
        'a/',
        'a\0b',
        '\0',
        'n'.repeat(256),
        'n'.repeat(65_535),
      ]) {
        const reply = await wire.request(op, { ...rightBody(op, states.dir), [field]: name });
        const expected =
          name.length > 255
            ? /^ENAMETOOLONG$/
            : name === '.' || name === '..'
              ? /^(EEXIST|EINVAL|EISDIR|ENOTEMPTY|EBUSY)$/
              : /^(ENOENT|EINVAL)$/;
        expect([op, field, nameOf(reply)]).toEqual([op, field, expect.stringMatching(expected)]);
      }
    }
    await allAsBefore(wire, harness);
  });

  it('gets no more than a message holds, whatever count it gives (IO-3, IO-7)', async () => {
    const wire = await hostile(harness);
    for (const count of [0xffff_ffff, 0xffff_ffe8, 0x8000_0000, 0x7fff_ffff]) {
      const read = await wire.request('read', { fid: states.openFile, offset: 0, count });
      expect(read.body.toString('latin1', 4)).toBe('content');
      const listed = await wire.request('readdir', { fid: states.openDir, offset: 0, count });
      expect(listed.type).toBe(41);
    }
    for (const announced of [0, 3, 5, 0xffff_ffff, 0x7fff_ffff]) {
      const bytes = body('write', { fid: states.openFile, offset: 0, data: Buffer.from('xxxx') });
      bytes.writeUInt32LE(announced, 12);
      wire.send(frame(operations.write.type, 1, bytes));
      expect(nameOf(await wire.next())).toBe('EINVAL');
    }
    for (const nwname of [1, 16, 17, 0xffff]) {
      const bytes = body('walk', { fid: 0, newfid: 900, wname: [] });
      bytes.writeUInt16LE(nwname, 8);
      wire.send(frame(operations.walk.type, 1, bytes));
      expect(nameOf(await wire.next())).toBe('EINVAL');
    }
    await allAsBefore(wire, harness);
  });

  it('gets EINVAL for every message that is cut short, or has bytes behind its end', async () => {
    const wire = await hostile(harness);
    for (const op of ops) {
      const right = body(op, rightBody(op, states.dir));
      const wrong = [
        ...Array.from(right, (_, length) => right.subarray(0, length)),
        Buffer.concat([right, Buffer.alloc(1)]),
        Buffer.concat([right, Buffer.alloc(100, 255)]),
      ];
      // Old clients omit this field.
      if (op === 'fsync') wrong.splice(4, 1);
      for (const bytes of wrong) {
        wire.send(frame(operations[op].type, op === 'version' ? NOTAG : 1, bytes));
        expect([op, bytes.length, nameOf(await wire.next())]).toEqual([op, bytes.length, 'EINVAL']);
      }
    }
    await allAsBefore(wire, harness);
  });

  it('is answered in kind or with an error, whatever it says, and harms nobody else (TR-6)', async () => {
    const bystander = await harness.begin();
    const file = await bystander.c.file(bystander.dir, 'f', 'content');
    const perOp = 60;
    for (const seed of [1, 2, 3]) {
      const wire = await hostile(harness);
      for (let i = 0; i < perOp; i++) {
        for (const [index, op] of ops.entries()) {
          const { type } = operations[op];
          const draw = (seed * 1000 + index) * 1000 + i;
          const bytes = i % 3 === 0 ? randomBytes(draw) : body(op, randomBody(op, draw));
          // A random Tversion would sometimes negotiate a new msize.
          wire.send(frame(type, 5, op === 'version' ? bytes.subarray(0, 5) : bytes));
          const reply = await wire.next();
          expect(reply.tag).toBe(5);
          expect([type + 1, 7]).toContain(reply.type);
          if (reply.type === 7) expect(reply.ecode > 0 && reply.ecode < 4096).toBe(true);
        }
      }
      expect((await wire.version()).type).toBe(101);
    }
    expect((await bystander.c.look(file)).size).toBe(7);
  });

  it('fills no memory and takes no descriptors with what is refused', async () => {
    const wire = await hostile(harness);
    const refused = Buffer.concat([
      frame(operations.walk.type, 1, body('walk', { fid: states.file, newfid: 900, wname: ['x'] })),
      frame(operations.lopen.type, 2, body('lopen', { fid: states.file, flags: 3 })),
      frame(
        operations.xattrwalk.type,
        3,
        body('xattrwalk', { fid: states.file, newfid: 900, name: 'user.x' }),
      ),
      frame(operations.attach.type, 4, body('attach', { fid: 900, afid: 0, uname: 'x', aname: 'x' })),
      frame(operations.lcreate.type, 5, body('lcreate', { fid: states.dir, name: 'f', flags: 0o302 })),
      frame(operations.mkdir.type, 6, body('mkdir', { dfid: states.dir, name: 'f' })),
    ]);
    const round = async () => {
      wire.send(refused);
      for (const { ecode } of await wire.nextOf(6)) expect(ecode).toBeGreaterThan(0);
    };
    for (let i = 0; i < 200; i++) await round();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 1500; i++) await round();
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
    await allAsBefore(wire, harness);
  });
});
