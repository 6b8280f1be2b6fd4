import type { ExportOptions } from '#exports/exports.ts';

/**
 * What `--export` may say after its path, with an example of each. Names and meaning are those of QEMU's `-fsdev local` where
 * it has them, otherwise those of exports(5) and mount(8).
 */
const examples = {
  name: 'files',
  security_model: 'mapped',
  readonly: 'on',
  fmode: '0600',
  dmode: '0700',
  multidevs: 'remap',
  allow: 'cid:5',
  privport: 'on',
  squash: 'root',
  anonuid: '65534',
  anongid: '65534',
  map: '0:100000:65536',
} as const;
type Key = keyof typeof examples;
const keys = Object.keys(examples) as Key[];
/** Those that may be there several times. */
const lists: ReadonlySet<Key> = new Set<Key>(['allow', 'map']);

const squashes = ['none', 'root', 'all'] as const;
export const securityModels = ['mapped', 'passthrough'] as const;

/** Cuts at single commas; two in a row stand for one that is part of the value, as in QEMU's options. */
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

/** A number as C writes it: 0600 is octal, 0x180 hexadecimal, 384 decimal. Undefined when it is none. */
export function numberAsInC(text: string): number | undefined {
  if (/^0[0-7]*$/.test(text)) return Number.parseInt(text, 8);
  if (/^[1-9][0-9]*$/.test(text) || /^0x[0-9a-f]+$/i.test(text)) return Number(text);
  return undefined;
}

/** Reads `PATH[,key=value]…`. What is wrong goes to `fault`, what is not is in the result. */
export function parseExport(text: string, problem: (text: string) => void): ExportOptions | undefined {
  const about = (what: string) => problem(`--export ${text}: ${what}`);
  const [path, ...settings] = splitAtCommas(text);
  if (path === '' || path === undefined) {
    about('the path is missing: it comes first, as in --export /srv/files,name=files');
    return undefined;
  }
  if (keys.some(key => path.startsWith(`${key}=`))) {
    about('the path comes first, as in --export /srv/files,name=files');
    return undefined;
  }
  const values = readSettings(settings, about);
  const one = (key: Key) => values.get(key)?.[0];
  const mode = (key: 'fmode' | 'dmode') => readMode(key, one(key), about);
  const flag = (key: 'readonly' | 'privport') => {
    const value = oneOf(key, one(key), ['on', 'off'], about);
    return value === undefined ? undefined : value === 'on';
  };
  oneOf('multidevs', one('multidevs'), ['remap'], about);
  return {
    path,
    ...present('name', one('name')),
    ...present('securityModel', oneOf('security_model', one('security_model'), securityModels, about)),
    ...present('readonly', flag('readonly')),
    ...present('fmode', mode('fmode')),
    ...present('dmode', mode('dmode')),
    ...present('allow', values.get('allow')),
    ...present('privport', flag('privport')),
    ...present('squash', oneOf('squash', one('squash'), squashes, about)),
    ...present('anonuid', readId('anonuid', one('anonuid'), about)),
    ...present('anongid', readId('anongid', one('anongid'), about)),
    ...present('map', values.get('map')),
  };
}

function present<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}

function readSettings(settings: readonly string[], about: (what: string) => void): Map<Key, string[]> {
  const values = new Map<Key, string[]>();
  for (const setting of settings) {
    const equals = setting.indexOf('=');
    const key = (equals < 0 ? setting : setting.slice(0, equals)) as Key;
    const there = values.get(key);
    if (!keys.includes(key)) {
      about(`there is no "${key}": it can say ${keys.join(', ')}; write a comma in a path or name twice`);
    } else if (equals < 0) {
      about(`"${key}" needs a value, as in ${key}=${examples[key]}`);
    } else if (there && !lists.has(key)) {
      about(`"${key}" is there twice`);
    } else {
      values.set(key, [...(there ?? []), setting.slice(equals + 1)]);
    }
  }
  return values;
}

function oneOf<T extends string>(
  key: Key,
  value: string | undefined,
  allowed: readonly T[],
  about: (what: string) => void,
): T | undefined {
  if (value === undefined || allowed.includes(value as T)) return value as T | undefined;
  about(`${key}=${value} is not possible: say ${allowed.map(one => `${key}=${one}`).join(' or ')}`);
  return undefined;
}

function readMode(
  key: 'fmode' | 'dmode',
  value: string | undefined,
  about: (what: string) => void,
): number | undefined {
  if (value === undefined) return undefined;
  const mode = numberAsInC(value);
  // As in QEMU, of a whole mode the permission bits are taken.
  if (mode !== undefined && mode <= 0o177777) return mode & 0o777;
  about(`${key}=${value} is no mode: write it in octal, as in ${key}=${examples[key]}`);
  return undefined;
}

function readId(
  key: 'anonuid' | 'anongid',
  value: string | undefined,
  about: (what: string) => void,
): number | undefined {
  if (value === undefined) return undefined;
  if (/^[0-9]{1,10}$/.test(value)) return Number(value);
  about(`${key}=${value} is no id: write a number, as in ${key}=${examples[key]}`);
  return undefined;
}
