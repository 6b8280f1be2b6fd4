import { EACCES } from '#base/errno.ts';
import type { Bytes } from '#base/name.ts';
import { Once } from '#base/once.ts';
import type { Peer } from '#base/peer.ts';
import type { ExportLookup } from '#session/attachment.ts';
import type { Export, Exports } from './exports.ts';

/**
 * The exports that one connection can find: those that its peer may use, or `only` that one. The default is the first that the
 * peer may use. If any export is denied to the peer, or there are `more` that are not known here, every name that it may not use
 * gives EACCES, otherwise an unknown name gives ENOENT: so no guest learns the names of other guests' exports by probing.
 *
 * `log` gets one line when an export is first used or denied, and one for the first unknown name.
 */
export function exportsFor(
  exports: Exports,
  peer: Peer,
  only: Export | undefined,
  more: boolean,
  log: (text: string) => void,
): ExportLookup {
  const known = only ? [only] : [...exports];
  const refused = new Map<Export, string>();
  for (const one of known) {
    const refusal = one.access.refusal(peer);
    if (refusal !== undefined) refused.set(one, refusal);
  }
  const first = known.find(one => !refused.has(one)) ?? known[0];
  const logged = new Once();
  const logOnce = (found: Export | undefined, text: () => string) => {
    if (logged.isFirst(found)) log(text());
  };
  return {
    find(aname: Bytes) {
      const named = aname === '' || aname === '/' ? first : exports.find(aname);
      let found = named && known.includes(named) ? named : undefined;
      // A path that several exports have means the first that the peer may use.
      if (found && refused.has(found) && aname === Buffer.from(found.path).toString('latin1')) {
        found = known.find(one => one.path === found?.path && !refused.has(one)) ?? found;
      }
      const refusal = found && refused.get(found);
      if (found && refusal === undefined) {
        logOnce(found, () => `uses ${found.name} (${found.model}${found.readonly ? ', read-only' : ''})`);
        return found;
      }
      if (found) logOnce(found, () => `asks for ${found.name}, which it may not use: ${refusal}`);
      // JSON escapes control characters of the client's bytes.
      else logOnce(found, () => `asks for ${JSON.stringify(aname.slice(0, 64))}, which is no export`);
      if (more || refused.size > 0) throw EACCES;
      return undefined;
    },
  };
}
