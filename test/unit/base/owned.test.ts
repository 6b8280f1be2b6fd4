import { expect, it } from 'vitest';
import type { OpenDir, OpenFile, Tree } from '#backend/tree.ts';
import { allocOwned, type Segments } from '#base/owned.ts';
import { type InlineSyscalls, type Syscalls, serverCreds } from '#host/syscalls.ts';
import type { Exchange } from '#session/exchange.ts';
import { contextOf } from '../../support/context.ts';

/** Compile-time test (npm run typecheck): the line after each directive must be a type error. Never called. */
function passExpiringMemory(
  sys: Syscalls,
  inline: InlineSyscalls,
  tree: Tree,
  open: OpenFile & OpenDir,
  exchange: Exchange,
) {
  const space: Segments = exchange.reserveData(1);
  const actor = contextOf(serverCreds);
  // @ts-expect-error
  void sys.read(serverCreds, 0, space, 0);
  // @ts-expect-error
  void sys.write(serverCreds, 0, exchange.payload, 0);
  // @ts-expect-error
  void sys.readdir(serverCreds, 0, 0, 0, space[0]!, '', '');
  // @ts-expect-error
  void sys.setxattr(serverCreds, 0, '', exchange.head, 0);
  // @ts-expect-error
  void tree.read(actor, open, space, 0);
  // @ts-expect-error
  void tree.write(actor, open, exchange.payload, 0);
  // @ts-expect-error
  void tree.readdir(actor, open, 0, 0, exchange.out);
  inline.read(serverCreds, 0, space, 0);
  inline.write(serverCreds, 0, exchange.payload, 0);
  tree.writeNow?.(actor, open, exchange.payload, 0);
  void tree.write(actor, open, exchange.detach().payload, 0);
}

it('expiring memory is rejected by the compiler', () => {
  expect(passExpiringMemory).toBeTypeOf('function');
});

it('allocOwned returns disjoint memory', () => {
  const [a, b] = [allocOwned(16), allocOwned(16)];
  a.fill(1);
  b.fill(2);
  expect(a.every(byte => byte === 1)).toBe(true);
});
