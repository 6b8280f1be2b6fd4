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
    const undone = undo();
    if (!(undone instanceof Promise)) throw error;
    return undone.then(() => {
      throw error;
    });
  }
  if (!(answer instanceof Promise)) return answer;
  return answer.catch(async error => {
    await undo();
    throw error;
  });
}

/** Runs `act` and then `after`, whether it succeeded or not; the answer is that of `act`. */
export function lastly<T>(act: () => Answer<T>, after: () => Answer<unknown>): Answer<T> {
  return andThen(attempt(act, after), value => andThen(after(), () => value));
}

/** Runs `act`; what it fails with, now or later, goes to `otherwise`, which answers instead or throws. */
export function recover<T>(act: () => Answer<T>, otherwise: (error: unknown) => Answer<T>): Answer<T> {
  let answer: Answer<T>;
  try {
    answer = act();
  } catch (error) {
    return otherwise(error);
  }
  return answer instanceof Promise ? answer.catch(otherwise) : answer;
}

/** Runs `act` for each item, one after another. */
export function forEach<I>(items: readonly I[], act: (item: I) => Answer<unknown>, from = 0): Answer<void> {
  for (let i = from; i < items.length; i++) {
    const answer = act(items[i]!);
    if (answer instanceof Promise) return answer.then(() => forEach(items, act, i + 1));
  }
}

/** Runs steps one after another; absent ones are left out. */
export function inOrder(steps: readonly ((() => Answer<unknown>) | false | undefined)[]): Answer<void> {
  return forEach(steps, step => (step ? step() : undefined));
}
