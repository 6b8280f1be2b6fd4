import { describe, expect, it } from 'vitest';
import { decodeRequest, encodeRequest } from '#protocol/codec.ts';
import { faultOf } from './faults.ts';

describe('a name', () => {
  const mkdir = (name: string) => faultOf('mkdir', { dfid: 1, name, mode: 0, gid: 0 });

  it('is bytes, not text', () => {
    const frame = encodeRequest('mkdir', 1, { dfid: 1, name: '\xff\xfe\x80', mode: 0, gid: 0 });
    expect(frame.toString('hex', 11, 16)).toBe('0300fffe80');
    expect(decodeRequest('mkdir', frame).name).toBe('\xff\xfe\x80');
  });

  const rest = { mode: 0, gid: 0 };
  const made: Readonly<Record<string, (name: string) => string>> = {
    lcreate: name => faultOf('lcreate', { fid: 1, name, flags: 0, ...rest }),
    symlink: name => faultOf('symlink', { dfid: 1, name, symtgt: '../a\0', gid: 0 }),
    mknod: name => faultOf('mknod', { dfid: 1, name, major: 1, minor: 3, ...rest }),
    link: name => faultOf('link', { dfid: 1, fid: 2, name }),
    mkdir,
  };
  const renamed: typeof made = {
    rename: name => faultOf('rename', { fid: 1, dfid: 2, name }),
    'renameat, from': oldname => faultOf('renameat', { olddirfid: 1, oldname, newdirfid: 2, newname: 'x' }),
    'renameat, to': newname => faultOf('renameat', { olddirfid: 1, oldname: 'x', newdirfid: 2, newname }),
  };
  const removed: typeof made = { unlinkat: name => faultOf('unlinkat', { dirfid: 1, name, flags: 0 }) };
  const walked: typeof made = {
    'walk, first': name => faultOf('walk', { fid: 1, newfid: 2, wname: [name, 'x'] }),
    'walk, last': name => faultOf('walk', { fid: 1, newfid: 2, wname: ['x', name] }),
  };

  it.each(Object.entries({ ...made, ...renamed, ...removed, ...walked }))(
    'of %s has 1 to 255 bytes, no slash and no NUL',
    (_, take) => {
      expect(take('x'.repeat(255))).toBe('taken');
      expect(take('x'.repeat(256))).toBe('ENAMETOOLONG');
      expect(take('x'.repeat(65535))).toBe('ENAMETOOLONG');
      for (const name of ['', '/', 'a/b', '../x', 'a\0', 'a\0b', '\0']) expect(take(name)).toBe('ENOENT');
      for (const name of ['...', '.a', 'a\\b', '\n', ' ', '\xff\xfe\x80']) expect(take(name)).toBe('taken');
    },
  );

  it('`.` or `..` gives the errno of the system call', () => {
    const dots = (of: typeof made) => Object.values(of).flatMap(take => [take('.'), take('..')]);
    expect(new Set(dots(made))).toEqual(new Set(['EEXIST']));
    expect(new Set(dots(renamed))).toEqual(new Set(['EISDIR']));
    expect(dots(removed)).toEqual(['EINVAL', 'ENOTEMPTY']);
  });

  it('in a walk may be `..`, but not `.`', () => {
    const walk = (...wname: string[]) => faultOf('walk', { fid: 1, newfid: 2, wname });
    expect(walk('a', '..', 'b')).toBe('taken');
    expect(walk('.')).toBe('EINVAL');
    expect(walk('a', '.')).toBe('EINVAL');
  });

  it('of an xattr has no NUL, at most 255 bytes, and is empty only to list the names', () => {
    const get = (name: string) => faultOf('xattrwalk', { fid: 1, newfid: 2, name });
    const set = (name: string) => faultOf('xattrcreate', { fid: 1, name, attr_size: 0, flags: 0 });
    expect([get(''), set('')]).toEqual(['taken', 'ERANGE']);
    for (const make of [get, set]) {
      expect(make(`user.${'x'.repeat(250)}`)).toBe('taken');
      expect(make(`user.${'x'.repeat(251)}`)).toBe('ERANGE');
      expect(make('user.a\0b')).toBe('EINVAL');
      expect(make('user.a/b')).toBe('taken');
    }
  });
});
