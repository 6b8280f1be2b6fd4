import { modelEntry } from '#security/models.ts';
import type { Audience } from '#transport/audience.ts';
import { type ExportOptions, exportName } from './exports.ts';

/** A listener, or a socket that is to be one. */
export interface Reachable {
  readonly uri: string;
  readonly audience?: Audience;
}

/** Whether its model's host calls run as the user that a guest names. */
const actsAsGuests = ({ securityModel }: ExportOptions) =>
  modelEntry(securityModel)?.needs.guestCreds === true;

/** Whether programs of every user of this host can connect. Where other machines can, they can as well. */
function isForLocalUsers({ audience }: Reachable): boolean {
  return audience === 'every user of this host' || audience === 'other machines';
}

/** TCP and vsock have ports, of which those below 1024 are root's: bind(2). */
const hasPorts = ({ uri }: Reachable) => /^(tcp|vsock):/.test(uri);

/** A warning for each listener with an audience, if there are exports that are for all of it. */
export function audienceWarnings(
  listeners: readonly Reachable[],
  exports: readonly ExportOptions[],
): string[] {
  return listeners.flatMap(listener => {
    const { uri, audience } = listener;
    if (audience === undefined) return [];
    const ownPorts = audience === 'every user of this host' && hasPorts(listener);
    const open = exports.filter(one => one.allow === undefined && !(ownPorts && one.privport));
    if (open.length === 0) return [];
    const asRoot = open.some(actsAsGuests) ? ', as root if they say so' : '';
    return [
      `${uri} can be reached by ${audience}, all of whom may use ${open.map(exportName).join(', ')}${asRoot}: ` +
        remedies(listener),
    ];
  });
}

function remedies(listener: Reachable): string {
  switch (listener.audience) {
    case 'other machines':
      return 'restrict it, as in --export PATH,allow=tcp:192.168.122.0/24';
    case 'every virtual machine of this host':
      return 'restrict it, as in --export PATH,allow=cid:5';
    default:
      return hasPorts(listener)
        ? 'where that matters, listen on unix:///PATH, vhost-user:///PATH or vsock://any, or export with privport=on'
        : 'restrict it, as in --export PATH,allow=uid:1000';
  }
}

/**
 * Why `passthrough` may not be served there: whoever connects names the user that he acts as, root included. So a listener that
 * every user of this host reaches makes each of them root, by a set-uid program that he leaves in the export.
 */
export function audienceProblems(
  listeners: readonly Reachable[],
  exports: readonly ExportOptions[],
): string[] {
  const open = exports.filter(one => actsAsGuests(one) && one.allow === undefined && !one.privport);
  if (open.length === 0) return [];
  const names = open.map(exportName).join(', ');
  return listeners
    .filter(isForLocalUsers)
    .map(
      ({ uri }) =>
        `${uri}: every user of this host can connect there and be root in ${names} (security_model=passthrough): ` +
        'listen on unix:///PATH, vhost-user:///PATH or vsock://any, export with allow=WHO or privport=on, or accept it with --insecure-loopback',
    );
}
