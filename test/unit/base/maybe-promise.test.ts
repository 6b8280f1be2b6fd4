import { expect, it } from 'vitest';
import { type MaybePromise, runSteps, type Steps, wait } from '#base/maybe-promise.ts';

function* sum(...terms: readonly MaybePromise<number>[]): Steps<number> {
  let total = 0;
  for (const term of terms) total += yield* wait(term);
  return total;
}

const later = <T>(value: T) => new Promise<T>(resolve => setImmediate(() => resolve(value)));
const failing = () => Promise.reject(new Error('failed'));

it('steps that wait for nothing return their result, and throw their error, at once', () => {
  expect(runSteps(sum(1, 2, 3))).toBe(6);
  const fail = function* (): Steps<number> {
    yield* wait(1);
    throw new Error('failed');
  };
  expect(() => runSteps(fail())).toThrow('failed');
});

it('steps that wait return a promise, and go on at once where they do not wait', async () => {
  const result = runSteps(sum(1, later(2), 3, later(4)));
  expect(result).toBeInstanceOf(Promise);
  expect(await result).toBe(10);
});

it('a rejected promise is an error where it is waited for', async () => {
  const done: string[] = [];
  const steps = function* (): Steps<string> {
    try {
      yield* wait(later(1));
      yield* wait(failing());
    } catch (error) {
      done.push((error as Error).message);
      yield* wait(later(2));
    } finally {
      done.push('finally');
    }
    return 'end';
  };
  expect(await runSteps(steps())).toBe('end');
  expect(done).toEqual(['failed', 'finally']);
  const uncaught = function* (): Steps<void> {
    yield* wait(later(1));
    yield* wait(failing());
  };
  await expect(runSteps(uncaught())).rejects.toThrow('failed');
});
