import { EACCES } from '#base/errno.ts';
import type { Bytes } from '#base/name.ts';
import type { Peer } from '#base/peer.ts';
import type { ExportLookup as Finder } from '#session/attachment.ts';
import type { Export, Exports } from './exports.ts';

/**
 * The exports as one connection finds them: those that its peer may use, or the `only` one if it may use that. The first is
 * the first that it may use. What it may not use and what is not there look the same: EACCES where anything is kept from the
 * peer, ENOENT where nothing is, so that no guest learns the names of others' exports by asking.
 *
 * `say` is told once of each export that it is used, or refused, and once that one is asked for in vain.
 */
export function exportsFor(
  exports: Exports,
  peer: Peer,
  only: Export | undefined,
  say: (text: string) => void,
): Finder {
  const known = only ? [only] : [...exports];
  const refused = new Map<Export, string>();
  for (const one of known) {
    const why = one.access.refusal(peer);
    if (why !== undefined) refused.set(one, why);
  }
  const first = known.find(one => !refused.has(one)) ?? known[0];
  const said = new Set<Export | undefined>();
  const sayOnce = (found: Export | undefined, text: () => string) => {
    if (said.has(found)) return;
    said.add(found);
    say(text());
  };
  return {
    find(aname: Bytes) {
      const named = aname === '' || aname === '/' ? first : exports.find(aname);
      let found = named && known.includes(named) ? named : undefined;
      // Of several exports of one path, the path means the first that the peer may use.
      if (found && refused.has(found) && aname === Buffer.from(found.path).toString('latin1')) {
        found = known.find(one => one.path === found?.path && !refused.has(one)) ?? found;
      }
      const why = found && refused.get(found);
      if (found && why === undefined) {
        sayOnce(found, () => `uses ${found.name} (${found.model}${found.readonly ? ', read-only' : ''})`);
        return found;
      }
      if (found) sayOnce(found, () => `asks for ${found.name}, which it may not use: ${why}`);
      // The client's bytes, made fit for a log.
      else sayOnce(found, () => `asks for ${JSON.stringify(aname.slice(0, 64))}, which is no export`);
      if (refused.size > 0) throw EACCES;
      return undefined;
    },
  };
}
