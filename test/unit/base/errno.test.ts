import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { EIO, ENOENT, Errno } from '#base/errno.ts';

test('an errno is an Error that says what it is, without a stack trace', () => {
  expect(ENOENT).toBeInstanceOf(Error);
  expect(ENOENT.message).toBe('ENOENT: no such file or directory');
  expect(ENOENT.stack).toBe(ENOENT.message);
  expect(inspect(ENOENT)).toContain('ENOENT: no such file or directory');
  expect(`${ENOENT}`).toBe('ENOENT (2)');
});

test('each number has one object, which is thrown as it is', () => {
  expect(Errno.of(2)).toBe(ENOENT);
  expect(Errno.of(4000)).toBe(Errno.of(4000));
  expect(Errno.of(4000).message).toBe('errno 4000');
  expect(Errno.of(5000)).toBe(EIO);
  const thrown = () => {
    try {
      throw ENOENT;
    } catch (error) {
      return error;
    }
  };
  expect(thrown()).toBe(ENOENT);
  expect(ENOENT.stack).toBe(ENOENT.message);
});

test('other errors keep their stack traces', () => {
  Errno.of(4001);
  expect(new Error('a bug').stack).toContain('errno.test.ts');
});
