/**
 * A result that is there at once where the kernel has it, and a promise where the kernel waits.
 * Failures are thrown (or rejected with) an `Errno`.
 */
export type MaybePromise<T> = T | Promise<T>;

/**
 * Goes on with `next` in the same turn when the answer is there already. (An export named `then` would make the module
 * itself a thenable, which `import()` calls.)
 */
export function andThen<T, U>(answer: MaybePromise<T>, next: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return answer instanceof Promise ? answer.then(next) : next(answer);
}

/** Runs `act`; when it fails, now or later, runs `undo` and passes the failure on. */
export function onError<T>(act: () => MaybePromise<T>, undo: () => unknown): MaybePromise<T> {
  let answer: MaybePromise<T>;
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
export function andFinally<T>(
  act: () => MaybePromise<T>,
  after: () => MaybePromise<unknown>,
): MaybePromise<T> {
  return andThen(onError(act, after), value => andThen(after(), () => value));
}

/** Runs `act`; what it fails with, now or later, goes to `otherwise`, which answers instead or throws. */
export function recover<T>(
  act: () => MaybePromise<T>,
  otherwise: (error: unknown) => MaybePromise<T>,
): MaybePromise<T> {
  let answer: MaybePromise<T>;
  try {
    answer = act();
  } catch (error) {
    return otherwise(error);
  }
  return answer instanceof Promise ? answer.catch(otherwise) : answer;
}

/** Runs `act` for each item, one after another. */
export function forEach<I>(
  items: readonly I[],
  act: (item: I) => MaybePromise<unknown>,
  from = 0,
): MaybePromise<void> {
  for (let i = from; i < items.length; i++) {
    const answer = act(items[i]!);
    if (answer instanceof Promise) return answer.then(() => forEach(items, act, i + 1));
  }
}

/** Runs steps one after another; absent ones are left out. */
export function series(
  steps: readonly ((() => MaybePromise<unknown>) | false | undefined)[],
): MaybePromise<void> {
  return forEach(steps, step => (step ? step() : undefined));
}
