import { EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP, EUSERS } from '#base/errno.ts';
import { andThen } from '#base/maybe-promise.ts';
import { dialect, NOFID } from '#protocol/constants.ts';
import { msizeBytesMin } from '#quota/limits.ts';
import { Fid, plain } from '../fids.ts';
import { done, type Handlers } from './handler.ts';

export const sessions: Handlers<'version' | 'auth' | 'attach' | 'flush'> = {
  version(request, { msize, version }) {
    const agreed = Math.min(msize, request.session.msizeMax);
    return andThen(request.session.reset(), isLast => {
      // version(5): `unknown` establishes no session.
      if (version !== dialect) return { msize: agreed, version: 'unknown' };
      if (agreed < msizeBytesMin) throw EMSGSIZE;
      if (isLast) request.session.msize = agreed;
      return { msize: agreed, version: dialect };
    });
  },

  auth() {
    throw EOPNOTSUPP;
  },

  async attach(request, { fid: number, afid, uname, aname, n_uname }) {
    if (afid !== NOFID) throw EINVAL;
    const found = request.session.exports.find(aname);
    if (!found) throw ENOENT;
    const { tree, readonly, hostErrors } = found;
    const { fids, versions: observer } = request.session;
    if (!request.session.quota.attach(tree)) throw EUSERS;
    const newfid = request.reserve(number);
    try {
      const actor = {
        creds: await tree.credentials(n_uname),
        observer,
        pins: request.session.quota.pinnedFds,
      };
      const qid = await andThen(request.stat(tree, tree.root), attr => {
        if (attr.nlink === 0) hostErrors?.rootRemoved();
        return request.session.qidOf(tree.root, attr);
      });
      tree.hold(tree.root);
      fids.fill(
        newfid,
        new Fid({ tree, readonly, actor, hostErrors }, tree.root, plain, undefined, undefined),
      );
      request.session.attached(found, uname, n_uname);
      return { qid };
    } catch (error) {
      fids.unreserve(newfid);
      throw error;
    }
  },

  flush(request, { oldtag }) {
    return request.session.flush(oldtag) ?? done;
  },
};
