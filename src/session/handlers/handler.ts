import type { Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Op, RMessage, TMessage } from '#protocol/operations.ts';
import type { Request } from '../request.ts';

/**
 * Handles one message. Looks up, claims and reserves fids before its first `await`. Throws an Errno, or returns it where it is
 * frequent.
 */
type Handler<O extends Op> = (request: Request, message: TMessage<O>) => MaybePromise<RMessage<O> | Errno>;

export type Handlers<O extends Op = Op> = { readonly [One in O]: Handler<One> };

/** The reply without fields. */
export const done = {} as const;
