/**
 * A value if the call completed synchronously, a promise if it may block. Errors are thrown, or reject the promise; usually an
 * `Errno`.
 */
export type MaybePromise<T> = T | Promise<T>;

/**
 * Calls `next` with the value: at once if it is no promise. (Not named `then`, which would make the module a thenable for
 * `import()`.)
 */
export function andThen<T, U>(result: MaybePromise<T>, next: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return result instanceof Promise ? result.then(next) : next(result);
}

/** Runs `act`. If it throws or rejects, runs `undo`, waits for it and rethrows the error. */
export function onError<T>(act: () => MaybePromise<T>, undo: () => unknown): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = act();
  } catch (error) {
    const undone = undo();
    if (!(undone instanceof Promise)) throw error;
    return undone.then(() => {
      throw error;
    });
  }
  if (!(result instanceof Promise)) return result;
  return result.catch(async error => {
    await undo();
    throw error;
  });
}

/** Runs `act`, then `after` whether or not `act` failed. Returns or rethrows the result of `act`. */
export function andFinally<T>(
  act: () => MaybePromise<T>,
  after: () => MaybePromise<unknown>,
): MaybePromise<T> {
  return andThen(onError(act, after), value => andThen(after(), () => value));
}

/** Runs `act`. If it throws or rejects, returns the result of `otherwise(error)`. */
export function recover<T>(
  act: () => MaybePromise<T>,
  otherwise: (error: unknown) => MaybePromise<T>,
): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = act();
  } catch (error) {
    return otherwise(error);
  }
  return result instanceof Promise ? result.catch(otherwise) : result;
}

/** Runs steps one after another; skips false and undefined. */
export function series(
  steps: readonly ((() => MaybePromise<unknown>) | false | undefined)[],
  from = 0,
): MaybePromise<void> {
  for (let i = from; i < steps.length; i++) {
    const step = steps[i];
    const result = step ? step() : undefined;
    if (result instanceof Promise) return result.then(() => series(steps, i + 1));
  }
}

/**
 * A procedure whose calls may block, as a generator that yields the promises it waits for. `runSteps` runs it to its end,
 * without a promise if no call blocks, which an async function cannot. It is written like one: `function*` for `async
 * function`, and `yield* wait(call)` for `await call`.
 */
export type Steps<T> = Generator<Promise<unknown>, T, unknown>;

/** Waits for a result, in `Steps`. */
export function* wait<T>(result: MaybePromise<T>): Steps<T> {
  return result instanceof Promise ? ((yield result) as T) : result;
}

export function runSteps<T>(steps: Steps<T>): MaybePromise<T> {
  const { done, value } = steps.next();
  return done ? value : finish(steps, value);
}

async function finish<T>(steps: Steps<T>, waiting: Promise<unknown>): Promise<T> {
  for (;;) {
    const resume = await waiting.then(
      value => () => steps.next(value),
      error => () => steps.throw(error),
    );
    const { done, value } = resume();
    if (done) return value;
    waiting = value;
  }
}
