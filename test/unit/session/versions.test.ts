import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Node } from '#backend/tree.ts';
import { nameOf } from '#base/name.ts';
import { Versions } from '#session/versions.ts';
import { heldBy } from '../../support/descriptors.ts';
import { interceptCalls } from '../../support/intercept-calls.ts';
import { SessionHarness, TempExport } from './harness.ts';

const node: Node = { type: 0o100000, pathLow: 1, pathHigh: 0 };

describe('the version of an object', () => {
  it('is its stamp while the client changes nothing', () => {
    const versions = new Versions();
    expect(versions.versionOf(node, 7)).toBe(7);
    expect(versions.versionOf(node, 8)).toBe(8);
  });

  it('stays through changes of the client and moves with changes of others', () => {
    const versions = new Versions();
    versions.before(node, 7);
    versions.after(node, 8);
    versions.before(node, 8);
    versions.after(node, 9);
    expect(versions.versionOf(node, 9)).toBe(7);
    expect(versions.versionOf(node, 10)).toBe(10);
  });

  it('stays while changes of the client overlap', () => {
    const versions = new Versions();
    versions.before(node, 7);
    versions.before(node, 8);
    expect(versions.versionOf(node, 9)).toBe(7);
    versions.after(node, 9);
    expect(versions.versionOf(node, 10)).toBe(7);
    versions.after(node, 10);
    expect(versions.versionOf(node, 10)).toBe(7);
  });

  it('takes the new stamp when the client changes an object that others have changed', () => {
    const versions = new Versions();
    versions.before(node, 7);
    versions.after(node, 8);
    versions.before(node, 20);
    versions.after(node, 21);
    expect(versions.versionOf(node, 21)).toBe(20);
  });

  it('stays when answers about changes of its own come in another order than they were asked for', () => {
    const versions = new Versions();
    versions.before(node, 7, 0);
    versions.before(node, 7, 0);
    versions.after(node, 9, 2);
    versions.after(node, 8, 1);
    expect(versions.versionOf(node, 9, 2)).toBe(7);
    versions.before(node, 8, 1);
    versions.after(node, 10, 3);
    expect(versions.versionOf(node, 10, 3)).toBe(7);
    expect(versions.versionOf(node, 9, 2)).toBe(7);
    expect(versions.versionOf(node, 11, 3)).toBe(11);
    versions.before(node, 11, 3);
    versions.after(node, 12, 4);
    expect(versions.versionOf(node, 12, 4)).toBe(11);
  });

  it('stays so however many changes there were', () => {
    const versions = new Versions();
    const [before, after] = [2 ** 31 - 1, -(2 ** 31)];
    versions.before(node, 7, before);
    versions.after(node, 8, after);
    expect(versions.versionOf(node, 9, before)).toBe(7);
    expect(versions.versionOf(node, 9, after)).toBe(9);
  });
});

describe('qid.version', () => {
  let tempExport: TempExport;
  beforeEach(() => {
    tempExport = new TempExport();
  });
  afterEach(() => tempExport.close());

  it('stays through writes of the session and moves with writes of another session and of the host', async () => {
    writeFileSync(tempExport.path('f'), 'old');
    const tree = await tempExport.tree();
    const [harness, other] = [await new SessionHarness(tree).begin(), await new SessionHarness(tree).begin()];
    const versionAt = async (who: SessionHarness) => {
      const { attr } = await who.request('getattr', { fid: 1, request_mask: { low: 0x3fff, high: 0 } });
      return Buffer.from(attr).readUInt32LE(9);
    };
    for (const who of [harness, other]) {
      await who.request('walk', { fid: 0, newfid: 1, wname: [nameOf('f')] });
      await who.request('walk', { fid: 1, newfid: 2, wname: [] });
      await who.request('lopen', { fid: 2, flags: 2 });
    }
    const write = (who: SessionHarness, text: string) =>
      who.request('write', { fid: 2, offset: 0, data: { count: text.length, bytes: Buffer.from(text) } });
    const first = await versionAt(harness);
    expect(first).not.toBe(0);
    await write(harness, 'mine');
    await write(harness, 'mine again');
    expect(await versionAt(harness)).toBe(first);
    expect(await versionAt(other)).not.toBe(first);

    await write(other, 'and theirs, and longer');
    const second = await versionAt(harness);
    expect(second).not.toBe(first);
    await write(harness, 'mine');
    expect(await versionAt(harness)).toBe(second);
    appendFileSync(tempExport.path('f'), 'host');
    expect(await versionAt(harness)).not.toBe(second);
    await Promise.all([harness.session.close(), other.session.close()]);
  });

  it('stays through a batch of writes to several files with a clunk, and moves with the next host write', async () => {
    const tree = await tempExport.tree();
    const harness = await new SessionHarness(tree).begin();
    const versionAt = async (fid: number) => {
      const { attr } = await harness.request('getattr', { fid, request_mask: { low: 0x3fff, high: 0 } });
      return Buffer.from(attr).readUInt32LE(9);
    };
    for (const [index, name] of ['a', 'b'].entries()) {
      writeFileSync(tempExport.path(name), 'old');
      await harness.request('walk', { fid: 0, newfid: 1 + index, wname: [nameOf(name)] });
      await harness.request('walk', { fid: 1 + index, newfid: 11 + index, wname: [] });
      await harness.request('lopen', { fid: 11 + index, flags: 2 });
    }
    const write = (fid: number, offset: number) =>
      harness.request('write', { fid, offset, data: { count: 4, bytes: Buffer.from('mine') } });
    const before = [await versionAt(1), await versionAt(2)];

    const { batch, clunked } = harness.batch(() => ({
      batch: [write(11, 0), write(11, 4), write(12, 0), write(11, 8), write(12, 4), versionAt(2)],
      clunked: harness.request('clunk', { fid: 11 }),
    }));
    expect((await Promise.all(batch)).at(-1)).toBe(before[1]);
    await clunked;

    expect(readFileSync(tempExport.path('a'), 'latin1')).toBe('mineminemine');
    expect([await versionAt(1), await versionAt(2)]).toEqual(before);
    for (const [index, name] of ['a', 'b'].entries()) {
      appendFileSync(tempExport.path(name), 'host');
      expect(await versionAt(1 + index)).not.toBe(before[index]);
    }
    await harness.session.close();
    // The clunked file was closed although its batch of writes had not ended.
    expect(heldBy().filter(path => path.endsWith('/a'))).toEqual([]);
  });

  it('of a directory stays when the session creates something in it', async () => {
    const harness = await new SessionHarness(await tempExport.tree()).begin();
    const version = async () => {
      const { attr } = await harness.request('getattr', { fid: 0, request_mask: { low: 0x7ff, high: 0 } });
      return Buffer.from(attr).readUInt32LE(9);
    };
    const before = await version();
    await harness.request('mkdir', { dfid: 0, name: nameOf('d'), mode: 0o755, gid: 0 });
    expect(await version()).toBe(before);
    writeFileSync(tempExport.path('x'), '');
    expect(await version()).not.toBe(before);
    await harness.session.close();
  });

  describe('where every call may wait', () => {
    let harness: SessionHarness;
    let restore: () => void;
    /** Delays the result of the next stat(2) until `goOn`. */
    let keepsNext: boolean;
    /** The same, after the next write(2). */
    let keepsAfterWrite: boolean;
    let goOn: () => void;

    beforeEach(async () => {
      writeFileSync(tempExport.path('f'), 'old');
      const tree = await tempExport.tree();
      const { volume } = tree.root;
      Object.defineProperties(volume, { local: { value: false }, inline: { value: undefined } });
      harness = await new SessionHarness(tree).begin();
      await harness.request('walk', { fid: 0, newfid: 1, wname: [nameOf('f')] });
      await harness.request('walk', { fid: 1, newfid: 2, wname: [] });
      await harness.request('lopen', { fid: 2, flags: 2 });
      keepsNext = keepsAfterWrite = false;
      const released = new Promise<void>(resolve => {
        goOn = resolve;
      });
      restore = interceptCalls((name, call) => {
        const answer = call();
        if (name === 'write' && keepsAfterWrite) {
          keepsNext = true;
          keepsAfterWrite = false;
        }
        if (name !== 'stat' || !keepsNext) return answer;
        keepsNext = false;
        return Promise.resolve(answer).then(result => released.then(() => result));
      });
    });
    afterEach(async () => {
      restore();
      await harness.session.close();
    });

    const version = (attr: Uint8Array) => Buffer.from(attr).readUInt32LE(9);
    const look = async () => {
      const { attr } = await harness.request('getattr', { fid: 1, request_mask: { low: 0x3fff, high: 0 } });
      return version(attr);
    };
    const write = (text: string) =>
      harness.request('write', { fid: 2, offset: 0, data: { count: text.length, bytes: Buffer.from(text) } });
    /** Sends a request for which a result of the host arrives after a complete write of the same client. */
    const overtaken = async <T>(request: () => Promise<T>): Promise<T> => {
      const slow = request();
      await vi.waitFor(() => expect(keepsNext || keepsAfterWrite).toBe(false));
      await write('a write that is longer than the other');
      goOn();
      return slow;
    };

    it('is kept when a write after this one is answered before it', async () => {
      const first = await look();
      keepsAfterWrite = true;
      await overtaken(() => write('one'));
      expect(await look()).toBe(first);
    });

    it('is kept when a write that was asked for earlier begins after this one', async () => {
      const first = await look();
      await write('0');
      keepsNext = true;
      await overtaken(() => write('one'));
      expect(await look()).toBe(first);
    });

    it('is the old one in an answer that is older than the last write', async () => {
      const first = await look();
      await write('0');
      keepsNext = true;
      expect(await overtaken(look)).toBe(first);
      expect(await look()).toBe(first);
      appendFileSync(tempExport.path('f'), 'theirs');
      expect(await look()).not.toBe(first);
    });
  });
});
