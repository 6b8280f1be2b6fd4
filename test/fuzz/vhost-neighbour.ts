import { Errno } from '../../src/base/errno.ts';
import { Frontend } from '../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../support/vhost-served.ts';
import { assert, assertEqual } from './choices.ts';

export const turn = () => new Promise(resolve => setImmediate(resolve));

/**
 * Runs `act` on a device while another device serves a correct guest, which must not be affected; no fid may be left.
 */
export async function withNeighbour(act: (served: Served) => Promise<void>): Promise<void> {
  const served = await serveDirectory();
  const other = await serveDirectory({ tag: 'other' });
  try {
    const neighbour = await Frontend.connect(other.path);
    await neighbour.start();
    await neighbour.attach();
    await act(served);
    const clunked = await neighbour.request('clunk', { fid: 0 });
    assert(!(clunked instanceof Errno), () => `the neighbour got ${clunked}`);
    assertEqual([neighbour.errors, other.complaints], [0, []], () => 'the neighbour');
    neighbour.close();
  } finally {
    await other.close();
    await served.close();
  }
  for (const session of served.sessions) assertEqual(session.counts().fids, 0, () => 'fids are left');
}
