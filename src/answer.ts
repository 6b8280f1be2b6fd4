/**
 * A result that is there at once where the kernel has it, and a promise where the kernel waits.
 * Failures are thrown (or rejected with) an `Errno`.
 */
export type Answer<T> = T | Promise<T>;

/**
 * Goes on with `next` in the same turn when the answer is there already. (An export named `then` would make the module
 * itself a thenable, which `import()` calls.)
 */
export function andThen<T, U>(answer: Answer<T>, next: (value: T) => Answer<U>): Answer<U> {
  return answer instanceof Promise ? answer.then(next) : next(answer);
}

/** Runs `act`; when it fails, now or later, runs `undo` and passes the failure on. */
export function attempt<T>(act: () => Answer<T>, undo: () => unknown): Answer<T> {
  let answer: Answer<T>;
  try {
    answer = act();
  } catch (error) {
    undo();
    throw error;
  }
  if (!(answer instanceof Promise)) return answer;
  return answer.catch(async error => {
    await undo();
    throw error;
  });
}
