import type { Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Op, RMessage, TMessage } from '#protocol/operations.ts';
import type { Request } from '../request.ts';

/**
 * Answers a message. A handler looks up and claims what it uses before its first wait. A failure is thrown, or returned where it is
 * an everyday answer.
 */
export type Handler<O extends Op> = (
  request: Request,
  message: TMessage<O>,
) => MaybePromise<RMessage<O> | Errno>;

export type Handlers<O extends Op = Op> = { readonly [One in O]: Handler<One> };

export const done = {} as const;
