import type { Answer } from '../../answer.ts';
import type { Errno } from '../../errno.ts';
import type { Op, RMessage, TMessage } from '../../protocol/operations.ts';
import type { Exchange } from '../door.ts';
import type { Session } from '../session.ts';

/**
 * Answers a message. What its request looks up or claims, a handler does before its first wait; a failure is thrown, or
 * returned where it is an everyday answer.
 */
export type Handler<O extends Op> = (
  session: Session,
  request: TMessage<O>,
  exchange: Exchange,
) => Answer<RMessage<O> | Errno>;

export type Handlers<O extends Op = Op> = { readonly [One in O]: Handler<One> };

export const done = {} as const;
