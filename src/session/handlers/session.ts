import { EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP, EUSERS } from '#base/errno.ts';
import { andThen } from '#base/maybe-promise.ts';
import { dialect, NOFID } from '#protocol/constants.ts';
import { msizeBytesMin } from '#quota/limits.ts';
import { Fid, plain } from '../fids.ts';
import { done, type Handlers } from './handler.ts';

export const sessions = {
  version(request, { msize, version }) {
    const { session } = request;
    const agreed = Math.min(msize, session.msizeMax);
    // Not async: a client may send Tattach right behind Tversion.
    return andThen(session.reset(), isLast => {
      // version(5): `unknown` establishes no session.
      if (version !== dialect) return { msize: agreed, version: 'unknown' };
      if (agreed < msizeBytesMin) throw EMSGSIZE;
      if (isLast) session.msize = agreed;
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
    const { fids } = request.session;
    if (!request.session.quota.attach(tree)) throw EUSERS;
    const newfid = request.reserve(number);
    try {
      const creds = await tree.credentials(request.submitter, n_uname);
      const attachment = { tree, readonly, creds, hostErrors };
      const attr = await request.stat(attachment, tree.root);
      if (attr.nlink === 0) hostErrors?.rootRemoved();
      const qid = request.session.qidOf(tree.root, attr);
      tree.hold(tree.root);
      fids.fill(newfid, new Fid(attachment, tree.root, plain, undefined, undefined));
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
} satisfies Partial<Handlers>;
