import { expect, test } from 'vitest';
import { didYouMean } from '#base/did-you-mean.ts';

const known = ['mapped', 'passthrough', 'readonly', 'name'];

test.each([
  ['maped', 'mapped'],
  ['mappde', 'mapped'],
  ['Mapped', 'mapped'],
  ['pass', 'passthrough'],
  ['mapped-xattr', 'mapped'],
  ['nmae', 'name'],
  ['read-only', 'readonly'],
])('%s is taken for %s', (word, meant) => {
  expect(didYouMean(word, known)).toBe(` (did you mean "${meant}"?)`);
});

test.each(['', 'x', 'ma', 'none', 'unrelated', 'm'.repeat(5000)])('nothing is like %.20s', word => {
  expect(didYouMean(word, known)).toBe('');
});
