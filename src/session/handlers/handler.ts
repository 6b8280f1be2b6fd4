import type { Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Op, RMessage, TMessage } from '#protocol/operations.ts';
import type { Exchange } from '../exchange.ts';
import type { Session } from '../session.ts';

/**
 * Answers a message. What its request looks up or claims, a handler does before its first wait; a failure is thrown, or
 * returned where it is an everyday answer.
 */
export type Handler<O extends Op> = (
  session: Session,
  request: TMessage<O>,
  exchange: Exchange,
) => MaybePromise<RMessage<O> | Errno>;

export type Handlers<O extends Op = Op> = { readonly [One in O]: Handler<One> };

export const done = {} as const;
