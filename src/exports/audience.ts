import type { Listener } from '#transport/listener.ts';
import { type ExportOptions, exportName } from './exports.ts';

/** A warning for each listener with an audience, if there are exports without allow rules. */
export function audienceWarnings(
  listeners: readonly Listener[],
  exports: readonly ExportOptions[],
): string[] {
  const open = exports.filter(one => one.allow === undefined);
  if (open.length === 0) return [];
  const names = open.map(exportName).join(', ');
  return listeners.flatMap(({ uri, audience }) =>
    audience === undefined
      ? []
      : `${uri} can be reached by ${audience}, all of whom may use ${names}: restrict it, as in ` +
        `--export PATH,allow=${ruleFor[audience]}`,
  );
}

const ruleFor: Readonly<Record<NonNullable<Listener['audience']>, string>> = {
  'other machines': 'tcp:192.168.122.0/24',
  'every virtual machine of this host': 'cid:5',
  'every user of this host': 'uid:1000',
};
