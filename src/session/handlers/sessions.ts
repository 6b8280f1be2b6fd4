import { andThen } from '../../answer.ts';
import { EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP } from '../../errno.ts';
import { msizeBytesMin } from '../../limits.ts';
import { dialect, NOFID } from '../../protocol/constants.ts';
import type { Actor } from '../../tree/tree.ts';
import { Fid, plain } from '../fids.ts';
import { done, type Handlers } from './handler.ts';

export const sessions: Handlers<'version' | 'auth' | 'attach' | 'flush'> = {
  version(session, { msize, version }) {
    session.reset();
    const agreed = Math.min(msize, session.msizeBytesMax);
    // version(5): the session is not established. A suffix behind the dialect names one that is not spoken here.
    if (version !== dialect) return { msize: agreed, version: 'unknown' };
    if (agreed < msizeBytesMin) throw EMSGSIZE;
    session.msize = agreed;
    return { msize: agreed, version: dialect };
  },

  auth() {
    throw EOPNOTSUPP;
  },

  attach(session, { fid: number, afid, uname, aname, n_uname }) {
    const { fids } = session;
    if (afid !== NOFID) throw EINVAL;
    fids.checkFree(number);
    const found = session.exports.find(aname);
    if (!found) throw ENOENT;
    const { tree, readonly } = found;
    const caller = tree.caller(n_uname);
    const begin = (actor: Actor) => {
      session.noteAttach(found, uname, n_uname);
      return { tree, readonly, actor };
    };
    if (!(caller instanceof Promise)) {
      const attachment = begin({ caller, watch: session.versions });
      return andThen(session.stat(tree, tree.root), attr => {
        fids.checkFree(number);
        tree.hold(tree.root);
        fids.put(number, new Fid(attachment, tree.root, plain, undefined, undefined));
        return { qid: session.qidOf(tree.root, attr) };
      });
    }
    return session.attachLater(number, found, caller, begin);
  },

  flush(session, { oldtag }) {
    return session.flush(oldtag) ?? done;
  },
};
