import { S_IFDIR, S_IFMT, S_IFREG } from '#base/attr.ts';
import { didYouMean } from '#base/did-you-mean.ts';
import type { ExportOptions } from '#exports/exports.ts';
import { chowns, modelNames, recordKinds, type SecurityModelName } from '#security/models.ts';

/**
 * The keys of `--export`, with an example value each. Names and meaning are those of QEMU's `-fsdev local`, otherwise those of
 * exports(5) and mount(8).
 */
const examples = {
  name: 'files',
  security_model: 'mapped',
  accessmode: 'mapped',
  readonly: 'on',
  fmode: '0600',
  dmode: '0700',
  owner: '1000:1000',
  file_mode: '0644',
  dir_mode: '0755',
  records: 'override_stat',
  chown: 'refuse',
  multidevs: 'remap',
  freezable: 'on',
  hostlocks: 'off',
  source: '/srv/files.zip',
  allow: 'cid:5',
  privport: 'on',
  squash: 'root',
  anonuid: '65534',
  anongid: '65534',
  map: '0:100000:65536',
  check: 'host',
} as const;
type Key = keyof typeof examples;
type ModeKey = 'fmode' | 'dmode' | 'file_mode' | 'dir_mode';
const keys = Object.keys(examples) as Key[];
/** Keys that may be repeated. */
const repeatable: ReadonlySet<Key> = new Set<Key>(['allow', 'map']);

const multidevs = ['remap', 'forbid'] as const;

/** libvirt's words for the models: accessmode of <filesystem>. */
const accessModes = { passthrough: 'passthrough', mapped: 'mapped', squash: 'none' } as const;

/** The words of mount(8) and exports(5). */
const mountWords: ReadonlyMap<string, string> = new Map([
  ['ro', 'readonly=on'],
  ['rw', 'readonly=off'],
]);

const squashes = ['none', 'root', 'all'] as const;
const checks = ['guest', 'host'] as const;

/** Splits at single commas. Two commas are one literal comma, as in QEMU's options. */
export function splitAtCommas(text: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== ',') part += text[i];
    else if (text[i + 1] === ',') part += text[i++];
    else {
      parts.push(part);
      part = '';
    }
  }
  parts.push(part);
  return parts;
}

/** Parses a number in C notation: 0600 octal, 0x180 hexadecimal, 384 decimal. Undefined if invalid. */
export function numberAsInC(text: string): number | undefined {
  if (/^0[0-7]*$/.test(text)) return Number.parseInt(text, 8);
  if (/^[1-9][0-9]*$/.test(text) || /^0x[0-9a-f]+$/i.test(text)) return Number(text);
  return undefined;
}

/**
 * An export in the words of QEMU's `-fsdev local,path=PATH,…` or `-virtfs local,…`, in ninepd's: the path comes first, mount_tag is
 * the name, the id of the device is left out.
 */
function fromQemu(parts: readonly string[]): readonly string[] {
  const [driver, ...settings] = parts;
  const path = settings.find(one => one.startsWith('path='));
  if (driver !== 'local' || path === undefined) return parts;
  const named = settings.some(one => one.startsWith('name='));
  const kept = settings.filter(
    one => one !== path && !one.startsWith('id=') && !(named && one.startsWith('mount_tag=')),
  );
  return [
    path.slice('path='.length),
    ...kept.map(one => (one === 'readonly' ? 'readonly=on' : one.replace(/^mount_tag=/, 'name='))),
  ];
}

/** Parses `PATH[,key=value]…`, or QEMU's words for it. Calls `problem` for what is wrong; the result has the rest. */
export function parseExport(text: string, problem: (text: string) => void): ExportOptions | undefined {
  const report = (what: string) => problem(`--export ${text}: ${what}`);
  const [path, ...settings] = fromQemu(splitAtCommas(text));
  if (path === '' || path === undefined) {
    report('the path is missing: it comes first, as in --export /srv/files,name=files');
    return undefined;
  }
  if (keys.some(key => path.startsWith(`${key}=`))) {
    report('the path comes first, as in --export /srv/files,name=files');
    return undefined;
  }
  const values = readSettings(
    settings.map(one => mountWords.get(one) ?? one),
    report,
  );
  const one = (key: Key) => values.get(key)?.[0];
  const mode = (key: ModeKey) => readMode(key, one(key), report);
  const flag = (key: 'readonly' | 'privport' | 'freezable' | 'hostlocks') => {
    const value = oneOf(key, one(key), ['on', 'off'], report);
    return value === undefined ? undefined : value === 'on';
  };
  return {
    path,
    ...present('name', one('name')),
    ...present('securityModel', readModel(one('security_model'), one('accessmode'), report)),
    ...present('readonly', flag('readonly')),
    ...present('fmode', mode('fmode')),
    ...present('dmode', mode('dmode')),
    ...present('owner', one('owner')),
    ...present('fileMode', mode('file_mode')),
    ...present('dirMode', mode('dir_mode')),
    ...present('records', oneOf('records', one('records'), recordKinds, report)),
    ...present('chown', oneOf('chown', one('chown'), chowns, report)),
    ...present('freezable', flag('freezable')),
    ...present('hostLocks', flag('hostlocks')),
    ...present('multidevs', oneOf('multidevs', one('multidevs'), multidevs, report)),
    ...present('source', one('source')),
    ...present('allow', values.get('allow')),
    ...present('privport', flag('privport')),
    ...present('squash', oneOf('squash', one('squash'), squashes, report)),
    ...present('anonuid', readId('anonuid', one('anonuid'), report)),
    ...present('anongid', readId('anongid', one('anongid'), report)),
    ...present('map', values.get('map')),
    ...present('check', oneOf('check', one('check'), checks, report)),
  };
}

function present<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}

function readSettings(settings: readonly string[], report: (what: string) => void): Map<Key, string[]> {
  const values = new Map<Key, string[]>();
  for (const setting of settings) {
    const equals = setting.indexOf('=');
    const key = (equals < 0 ? setting : setting.slice(0, equals)) as Key;
    const given = values.get(key);
    if (!keys.includes(key)) {
      report(
        `unknown key "${key}"${didYouMean(key, keys)}: the keys are ${keys.join(', ')}; write a comma in a path or name twice`,
      );
    } else if (equals < 0) {
      report(`"${key}" needs a value, as in ${key}=${examples[key]}`);
    } else if (given && !repeatable.has(key)) {
      report(`"${key}" is given twice`);
    } else {
      values.set(key, [...(given ?? []), setting.slice(equals + 1)]);
    }
  }
  return values;
}

function oneOf<T extends string>(
  key: Key,
  value: string | undefined,
  allowed: readonly T[],
  report: (what: string) => void,
): T | undefined {
  if (value === undefined || allowed.includes(value as T)) return value as T | undefined;
  report(
    `${key}=${value} is not possible${didYouMean(value, allowed)}: use ${allowed.map(one => `${key}=${one}`).join(' or ')}`,
  );
  return undefined;
}

/** The model by its name, or by libvirt's. */
function readModel(
  name: string | undefined,
  accessMode: string | undefined,
  report: (what: string) => void,
): SecurityModelName | undefined {
  const words = Object.keys(accessModes) as (keyof typeof accessModes)[];
  const mode = oneOf('accessmode', accessMode, words, report);
  const model = oneOf('security_model', name, modelNames, report);
  if (mode !== undefined && model !== undefined && accessModes[mode] !== model)
    report(
      `accessmode=${mode} is security_model=${accessModes[mode]}, but security_model=${model} is given too`,
    );
  return model ?? (mode && accessModes[mode]);
}

function readMode(
  key: ModeKey,
  value: string | undefined,
  report: (what: string) => void,
): number | undefined {
  if (value === undefined) return undefined;
  const mode = numberAsInC(value);
  // Not the decimal form of a mode either, which has the type of a file or directory: an octal number was meant.
  const type = (mode ?? 0) & S_IFMT;
  if (mode !== undefined && /^[1-9]/.test(value) && mode > 0o777 && type !== S_IFREG && type !== S_IFDIR) {
    const meant = /^[0-7]{1,4}$/.test(value) ? `0${value}` : examples[key];
    report(`${key}=${value} is decimal, 0${mode.toString(8)} in octal, and no mode: write ${key}=${meant}`);
    return undefined;
  }
  // As in QEMU, only the permission bits of a full mode are used.
  if (mode !== undefined && mode <= 0o177777) return mode & 0o777;
  report(`${key}=${value} is no mode: write it in octal, as in ${key}=${examples[key]}`);
  return undefined;
}

function readId(
  key: 'anonuid' | 'anongid',
  value: string | undefined,
  report: (what: string) => void,
): number | undefined {
  if (value === undefined) return undefined;
  if (/^[0-9]{1,10}$/.test(value)) return Number(value);
  report(`${key}=${value} is no id: write a number, as in ${key}=${examples[key]}`);
  return undefined;
}
