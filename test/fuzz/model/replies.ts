import type { Draft, Op } from '../../../src/protocol/operations.ts';
import { dataReplies } from './data-replies.ts';
import { nameReplies } from './name-replies.ts';
import { type ModelNode, refuse } from './nodes.ts';
import { type ModelSession, NOFID } from './session.ts';

/**
 * The expected fields of a reply. A `ModelNode` stands for its qid; a function checks the value. `refused` is an errno that is
 * allowed instead, where the model does not know whether something fits.
 */
export type Wanted = Readonly<Record<string, unknown | ModelNode | ((value: never) => string | undefined)>>;

export type Asked<O extends Op> = Draft<O>;
export type ExpectedReplies = { readonly [O in Op]?: (session: ModelSession, asked: Asked<O>) => Wanted };

export const ok: Wanted = {};

const conversing: ExpectedReplies = {
  version(session, { msize, version }) {
    session.reset();
    const agreed = Math.min(msize, 4 * 1024 * 1024);
    if (version !== '9P2000.L') return { msize: agreed, version: 'unknown' };
    if (agreed < 4096) refuse('EMSGSIZE');
    session.msize = agreed;
    return { msize: agreed, version };
  },

  auth: () => refuse('EOPNOTSUPP'),

  attach(session, { fid, afid, aname, n_uname }) {
    if (afid !== NOFID) refuse('EINVAL');
    const readonly = session.world.exports.get(aname) ?? refuse('ENOENT');
    session.checkFree(fid);
    const { root } = session.world.files;
    const attached = { readonly, user: session.user(n_uname) };
    const since = session.world.files.moves;
    session.fids.set(fid, { attached, node: root, open: undefined, dir: undefined, name: undefined, since });
    return { qid: root };
  },

  // Requests are sent one at a time, so none can be flushed.
  flush: () => ok,
};

export const answers: ExpectedReplies = { ...conversing, ...nameReplies, ...dataReplies };
