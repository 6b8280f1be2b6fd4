import type { ExportOptions } from '../exports.ts';

/** What `--export` may say after its path; the names and their meaning are those of QEMU's `-fsdev local`. */
const keys = ['name', 'security_model', 'readonly', 'fmode', 'dmode', 'multidevs'] as const;
type Key = (typeof keys)[number];

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
export function parseExport(text: string, fault: (text: string) => void): ExportOptions | undefined {
  const about = (what: string) => fault(`--export ${text}: ${what}`);
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
  const mode = (key: 'fmode' | 'dmode') => readMode(key, values.get(key), about);
  const model = oneOf('security_model', values.get('security_model'), securityModels, about);
  const readonly = oneOf('readonly', values.get('readonly'), ['on', 'off'], about);
  oneOf('multidevs', values.get('multidevs'), ['remap'], about);
  return {
    path,
    ...present('name', values.get('name')),
    ...present('securityModel', model),
    ...present('readonly', readonly === undefined ? undefined : readonly === 'on'),
    ...present('fmode', mode('fmode')),
    ...present('dmode', mode('dmode')),
  };
}

function present<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}

function readSettings(settings: readonly string[], about: (what: string) => void): Map<Key, string> {
  const values = new Map<Key, string>();
  for (const setting of settings) {
    const equals = setting.indexOf('=');
    const key = (equals < 0 ? setting : setting.slice(0, equals)) as Key;
    if (!keys.includes(key)) {
      about(`there is no "${key}": it can say ${keys.join(', ')}; write a comma in a path or name twice`);
    } else if (equals < 0) {
      about(`"${key}" needs a value, as in ${key}=${examples[key]}`);
    } else if (values.has(key)) {
      about(`"${key}" is there twice`);
    } else {
      values.set(key, setting.slice(equals + 1));
    }
  }
  return values;
}

const examples: Readonly<Record<Key, string>> = {
  name: 'files',
  security_model: 'mapped',
  readonly: 'on',
  fmode: '0600',
  dmode: '0700',
  multidevs: 'remap',
};

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
  if (mode === undefined)
    about(`${key}=${value} is no mode: write it in octal, as in ${key}=${examples[key]}`);
  return mode === undefined ? undefined : mode & 0o777;
}
