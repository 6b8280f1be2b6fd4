/** Command lines: a result or problems, never an exception; a result has all settings of the command line. */
import { numberAsInC, splitAtCommas } from '../../../src/cli/export-option.ts';
import { parseCommandLine, type ServeOptions } from '../../../src/cli/options.ts';
import type { ExportOptions } from '../../../src/exports/exports.ts';
import { type Endpoint, endpointOf, uriOf } from '../../../src/transport/endpoint.ts';
import { assert, assertEqual, Choices } from '../choices.ts';

const pieces = [
  '/srv/a',
  './b',
  ',',
  ',,',
  'name=',
  'n1',
  'security_model=',
  'mapped',
  'passthrough',
  'readonly=',
  'on',
  'off',
  'fmode=',
  'dmode=',
  '0600',
  '0777',
  '01777',
  '0x1ff',
  '384',
  '99999999999999999999',
  '-1',
  'multidevs=',
  'remap',
  'forbid',
  '=',
  'tcp://',
  '127.0.0.1',
  '[::1]',
  '[fe80::1%eth0]',
  ':',
  '5640',
  '65535',
  '65536',
  '0',
  '00080',
  'unix://',
  '/run/n.sock',
  'vsock://',
  'any',
  '*',
  '4294967295',
  '4294967294',
  'vhost-user://',
  '?tag=',
  'share',
  '&export=',
  '%41',
  '%ff',
  '+',
  '#',
  'fd://',
  '3',
  '2',
  'control',
  'http://',
  '4096',
  '1048576',
  '4194305',
  'trace',
  'info',
  'é',
  '\u0000',
  '\n',
  ' ',
  '../x',
] as const;
const names = [
  'export',
  'listen',
  'msize-max',
  'log-level',
  'security-model',
  'help',
  'version',
  'config',
  'constructor',
  '__proto__',
  'x',
] as const;
const words = ['serve', 'help', 'version', 'run', '--', '-', '-h', '-x', '', '/srv/c'] as const;

function text(choices: Choices): string {
  let made = '';
  for (let count = choices.below(7); count >= 0; count--)
    made += choices.rarely(12) ? choices.bytes(choices.below(6)).toString('latin1') : choices.of(pieces);
  return made;
}

function argsOf(choices: Choices): string[] {
  const args: string[] = [];
  for (let count = choices.below(8); count >= 0 && !choices.done; count--) {
    const kind = choices.below(6);
    if (kind < 3) args.push(`--${choices.of(names)}=${text(choices)}`);
    else if (kind === 3) args.push(`--${choices.of(names)}`, text(choices));
    else args.push(kind === 4 ? choices.of(words) : text(choices));
  }
  return args;
}

function checkEndpoint(endpoint: Endpoint): void {
  assertEqual(endpointOf(uriOf(endpoint)), endpoint, () => `${uriOf(endpoint)} leads elsewhere`);
  const integer = (value: number, max: number) =>
    assert(Number.isInteger(value) && value >= 0 && value <= max, () => `${value} in ${uriOf(endpoint)}`);
  if (endpoint.kind === 'tcp') integer(endpoint.port, 65535);
  if (endpoint.kind === 'fd') integer(endpoint.fd, 2 ** 31 - 1);
  if (endpoint.kind === 'vsock') integer(endpoint.cid, 2 ** 32 - 1);
  if (endpoint.kind === 'unix' || endpoint.kind === 'vhost-user')
    assert(!endpoint.path.includes('\0') && endpoint.path.startsWith('/'), () => `path ${endpoint.path}`);
}

/** Parses `--export` independently: the result must have every setting. */
function checkExport(said: string, one: ExportOptions): void {
  const [path, ...settings] = splitAtCommas(said);
  assertEqual(one.path, path, () => said);
  for (const setting of settings) {
    const [key, value] = [setting.slice(0, setting.indexOf('=')), setting.slice(setting.indexOf('=') + 1)];
    const taken: Readonly<Record<string, unknown>> = {
      name: one.name,
      security_model: one.securityModel,
      readonly: one.readonly === undefined ? undefined : one.readonly ? 'on' : 'off',
      multidevs: one.multidevs,
      fmode: one.fmode,
      dmode: one.dmode,
    };
    const wanted = key === 'fmode' || key === 'dmode' ? numberAsInC(value)! % 0o1000 : value;
    assert(typeof wanted === 'string' || numberAsInC(value)! <= 0o177777, () => `${setting} is no mode`);
    assertEqual(taken[key], wanted, () => `${setting} of ${said}`);
  }
}

/** Checks that the result has exactly the given options. */
function checkStart(args: readonly string[], { exports, listen, msizeMax }: ServeOptions): void {
  const given = (name: string) =>
    args.flatMap((arg, i) =>
      arg.startsWith(`--${name}=`) ? [arg.slice(name.length + 3)] : args[i - 1] === `--${name}` ? [arg] : [],
    );
  const said = given('export');
  assert(exports.length - said.length <= 1, () => 'more exports than were given');
  assert(exports.length >= said.length, () => 'an export got lost');
  for (const [i, one] of said.entries()) checkExport(one, exports[exports.length - said.length + i]!);
  assertEqual(listen.length, given('listen').length, () => 'listeners');
  for (const endpoint of listen) checkEndpoint(endpoint);
  for (const bytes of given('msize-max')) assertEqual(msizeMax, Number(bytes), () => '--msize-max');
}

export function fuzz(data: Buffer): void {
  const choices = new Choices(data);
  const args = choices.rarely(8) ? choices.rest().toString('latin1').split(' ') : argsOf(choices);
  const line = parseCommandLine(args);
  if (line.command !== 'serve') return;
  for (const problem of line.problems) assert(problem.length > 0, () => 'a fault without a text');
  // After `--` every argument is a directory, and one is allowed.
  if (line.problems.length === 0 && !args.includes('--')) checkStart(args, line.options);
}
