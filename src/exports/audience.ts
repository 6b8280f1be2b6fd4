import type { Listener } from '#transport/listener.ts';
import { type ExportOptions, exportName } from './exports.ts';

/** A warning for each listener that others can reach, as long as there are exports that say nothing of who may use them. */
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
      : `${uri} can be reached by ${audience}, and whoever reaches it may use ${names}: say who may, as in ` +
        `--export PATH,allow=${ruleFor[audience]}`,
  );
}

const ruleFor: Readonly<Record<NonNullable<Listener['audience']>, string>> = {
  'other machines': 'tcp:192.168.122.0/24',
  'every virtual machine of this host': 'cid:5',
  'every user of this host': 'uid:1000',
};
