import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, lchownSync, readFileSync, statSync } from 'node:fs';
import { dirname, isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '#base/config-error.ts';
import { Errno } from '#base/errno.ts';
import type { Logger } from '#base/log.ts';
import type { ExportOptions } from '#exports/exports.ts';
import { addonPath } from '#host/addon.ts';
import { UserDatabase } from '#host/nss.ts';
import { userNamed } from '#host/process.ts';
import {
  boundCapabilities,
  enterPrivateRoot,
  execute,
  groupsProgram,
  installSeccomp,
  keepCapabilities,
  landlock,
  landlockAbi,
  type Rule,
} from '#host/sandbox.ts';
import { refuseDescriptors, socketPair } from '#host/sockets.ts';
import { closeFd, dupCloexec } from '#host/vhost.ts';
import { type ModelEntry, modelEntry, modelsWhere } from '#security/models.ts';
import type { ServerOptions } from '#server.ts';
import { bindAll, closeBound } from '#transport/bind.ts';
import { type Endpoint, purposeOf } from '#transport/endpoint.ts';
import { readyForVsock } from '#transport/vsock.ts';
import { channelDescriptor, type Share } from '#workers/worker.ts';
import type { ServeOptions } from './options.ts';
import { mountsFor, privateMounts } from './private-root.ts';

/**
 * The program runs twice in one process. The first run binds the sockets, gives up rights and executes the program again:
 * Landlock and capabilities belong to threads, and Node has threads before any JavaScript runs, so that only what is
 * inherited over execve(2) holds for all of them. The second run opens the exports, and filters system calls before it
 * hears anybody.
 */
export interface Handover {
  readonly listen: readonly Endpoint[];
  /** Off: only the user was changed. */
  readonly sandbox: boolean;
  /** Whether there is nothing in the root directory but what it is for. */
  readonly privateRoot: boolean;
  /** Its ABI; not there when the kernel has none. */
  readonly landlock?: number;
  /** Sockets to `ninepd-groups`, one for each process that serves. */
  readonly groups: readonly number[];
  /** The socket to the service manager. */
  readonly notify?: number;
}

const variable = 'NINEPD_HANDOVER';

/** What the first run has handed over, once; undefined in the first run. What this process starts inherits none of it. */
export function handedOver(): Handover | undefined {
  const text = process.env[variable];
  delete process.env[variable];
  if (text === undefined) return undefined;
  const { listen, groups, notify, ...found } = JSON.parse(text) as Handover;
  return {
    ...found,
    listen: listen.map(one => (one.kind === 'bound' ? { ...one, fd: dupInherited(one.fd) } : one)),
    groups: groups.map(dupInherited),
    ...(notify === undefined ? {} : { notify: dupInherited(notify) }),
  };
}

/** The same socket, to be closed by execve(2). */
function dupInherited(fd: number): number {
  const kept = dupCloexec(fd);
  closeFd(fd);
  return kept;
}

/** What a worker is given of it. */
export function toWorker({ sandbox, privateRoot, landlock, groups }: Handover): (number: number) => Share {
  return number => {
    const own = groups[number - 1];
    const descriptors = own === undefined ? [] : [own];
    const handover: Handover = {
      ...{ listen: [], sandbox, privateRoot, groups: descriptors.map(() => channelDescriptor + 1) },
      ...(landlock === undefined ? {} : { landlock }),
    };
    return { env: { [variable]: JSON.stringify(handover) }, descriptors };
  };
}

/** What a server in its sandbox asks others about. */
export function hostServices(groups: number | undefined, log: Logger): Pick<ServerOptions, 'groupsOf'> {
  if (groups === undefined) return {};
  return { groupsOf: new UserDatabase(groups, text => log.error(text)).groupsOf };
}

/** What is wrong with the options that are about this. */
export function sandboxFaults({ exports, user, trustedXattrs }: ServeOptions): string[] {
  const problems: string[] = [];
  const models = modelsOf(exports);
  if (trustedXattrs && !models.some(({ needs }) => needs.trustedXattrs))
    problems.push(
      `--trusted-xattrs on is for security_model=${modelsWhere(({ needs }) => needs.trustedXattrs)}, which no export has`,
    );
  if (user === undefined) return problems;
  for (const name of actingAsGuests(models))
    problems.push(
      `--user ${user}: security_model=${name} acts as the guests' users, for which it must stay root`,
    );
  if (process.getuid!() !== 0)
    problems.push(`--user ${user}: only root can become another user: leave it out`);
  else if (userNamed(user) === undefined) problems.push(`--user ${user}: this machine has no such user`);
  return problems;
}

/** The distinct models of the exports. */
function modelsOf(exports: readonly ExportOptions[]): ModelEntry[] {
  return [...new Set(exports.map(({ securityModel }) => modelEntry(securityModel)!))];
}

/** Names of the models whose host calls run as the guests' users. */
function actingAsGuests(models: readonly ModelEntry[]): string[] {
  return models.filter(({ needs }) => needs.guestCreds).map(({ name }) => name);
}

/** Whether threads become guests' users. */
function usersOf(exports: readonly ExportOptions[]): boolean {
  return actingAsGuests(modelsOf(exports)).length > 0;
}

/** Whether this run is only to prepare another. */
export function runsTwice(options: ServeOptions): boolean {
  return options.sandbox || options.user !== undefined;
}

/** The first run. Does not return, but throws `ConfigError`. */
export async function enterSandbox(
  options: ServeOptions,
  endpoints: readonly Endpoint[],
  notify: number | undefined,
  log: Logger,
): Promise<never> {
  const { exports, sandbox, user } = options;
  if (sandbox) for (const one of exports) warnOfOwner(one, options, log);
  const groups = sandbox && usersOf(exports) ? Array.from({ length: options.workers }, startGroups) : [];
  const listen = (await bindAll(endpoints, text => log.warn(text))).map(aboveStandard);
  try {
    for (const one of listen) if ('fd' in one && !isDevice(one)) refuseDescriptors(one.fd);
    const capabilities = capabilitiesFor(options);
    const become = user === undefined ? undefined : userToBe(user, listen);
    const rules = sandbox ? rulesFor(exports, listen) : [];
    const rooted = sandbox && enterRoot(rules, options, log);
    if (sandbox) boundCapabilities(capabilities);
    become?.();
    const abi = sandbox ? landlockAbi() : undefined;
    if (sandbox) keepCapabilities(capabilities);
    if (abi !== undefined) landlock(rules);
    if (sandbox) filterCalls('next program');
    const handover: Handover = {
      ...{ listen, sandbox, privateRoot: rooted, groups },
      ...(abi === undefined ? {} : { landlock: abi }),
      ...(notify === undefined ? {} : { notify }),
    };
    return runAgain(handover);
  } catch (error) {
    closeBound(listen);
    throw error;
  }
}

/** A connection at a standard descriptor is moved: standard input of the second run is /dev/null. */
function aboveStandard(one: Endpoint): Endpoint {
  return one.kind === 'fd' && one.fd <= 2 ? { ...one, fd: dupCloexec(one.fd) } : one;
}

/** A monitor passes descriptors, and nobody else. */
const isDevice = (one: Endpoint) => purposeOf(one).kind === 'vhost-user';

/** False where the kernel has no filters. Where it has them, nothing is served without. */
function filterCalls(...filter: Parameters<typeof installSeccomp>): boolean {
  try {
    return installSeccomp(...filter);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    throw new ConfigError([
      `sandbox: system calls cannot be filtered (${error}): give the process more memory, or accept the risk with --sandbox off`,
    ]);
  }
}

/** Whether the root directory is one of its own now: only root can have that. */
function enterRoot(rules: readonly Rule[], { exports }: ServeOptions, log: Logger): boolean {
  if (process.getuid!() !== 0) return false;
  const directory = workingDirectory();
  const places = mountsFor(rules, directory);
  if (places === undefined) return false;
  const unfollowed = privateMounts(exports.map(({ path }) => resolve(path)));
  const failed = enterPrivateRoot(places);
  if (failed !== undefined) {
    // The capabilities of passthrough hold for everybody's files.
    const level = usersOf(exports) ? 'warn' : 'info';
    log[level](
      `sandbox: no root directory of its own can be had (${failed}): ` +
        'names, owners, modes and attributes of files outside of the exports are not out of reach',
    );
    return false;
  }
  process.chdir(directory);
  if (unfollowed.length > 0) {
    log.info(
      `sandbox: what the host mounts and unmounts in ${unfollowed.join(', ')} from now on does not show, ` +
        'since mounts are private there: if it shall, mount --make-rshared / before the start',
    );
  }
  return true;
}

/** The root where it was removed. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}

function runAgain(handover: Handover): never {
  const { execPath, argv0, execArgv, argv, env } = process;
  const { listen, groups, notify } = handover;
  const sockets = listen.flatMap(one => ('fd' in one ? [one.fd] : []));
  const descriptors = [...sockets, ...groups, ...(notify === undefined ? [] : [notify])];
  // Certificates are for TLS alone, and out of reach.
  const settings = { NODE_EXTRA_CA_CERTS: undefined };
  const again = [argv0, ...execArgv, main, ...argv.slice(2)];
  return execute(execPath, again, { ...env, ...settings, [variable]: JSON.stringify(handover) }, descriptors);
}

const here = fileURLToPath(import.meta.url);
const main = here.replace(/sandbox(\.[jt]s)$/, 'main$1');

/**
 * The second run, before it hears anybody: no thread can make another call than a server needs. A process that starts
 * workers makes processes too, and hands its filter down to them, who add the narrower one; it reads nothing from guests.
 */
export function applySeccomp(
  { listen, sandbox, privateRoot: rooted, landlock: abi }: Handover,
  { exports }: ServeOptions,
  role: 'serves' | 'is a worker' | 'starts workers',
  log: Logger,
): void {
  if (!sandbox) return;
  readyForVsock();
  const users = usersOf(exports);
  const descriptors = role === 'is a worker' || listen.some(isDevice);
  const filtered =
    role === 'starts workers' ? filterCalls('starter') : filterCalls('server', { users, descriptors });
  if (abi === undefined) {
    log.warn(
      `sandbox: this kernel has no Landlock (Linux 5.19 or later, and lsm=landlock,…): only ${rooted ? 'a root directory of its own keeps' : 'permissions keep'} this process from files outside of its exports`,
    );
  }
  if (!filtered) log.warn('sandbox: this kernel does not filter system calls: any can be made');
  const parts = [
    ...(rooted ? ['a root directory of its own'] : []),
    ...(abi === undefined ? [] : [`Landlock (ABI ${abi})`]),
    ...(filtered ? ['filtered system calls'] : []),
    users ? `only the capabilities of ${actingAsGuests(modelsOf(exports)).join(' and ')}` : 'no capabilities',
  ];
  log.info(`sandbox: ${parts.join(', ')}`);
}

/** What root keeps: what the models need. With passthrough a guest's root is root on its export, but for CAP_SYS_ADMIN. */
function capabilitiesFor({ exports, trustedXattrs }: ServeOptions): string[] {
  const needs = modelsOf(exports).flatMap(({ needs }) => [
    ...needs.capabilities,
    ...needs.furtherCapabilities,
    ...(trustedXattrs && needs.trustedXattrs ? ['CAP_SYS_ADMIN'] : []),
  ]);
  return [...new Set(needs)];
}

/** Root without capabilities is a user like others. */
function warnOfOwner({ path, securityModel }: ExportOptions, { user }: ServeOptions, log: Logger): void {
  if (modelEntry(securityModel)!.needs.guestCreds || process.getuid!() !== 0) return;
  const { uid: owner } = statSync(path);
  const server = user === undefined ? 0 : userNamed(user)?.uid;
  if (owner === server) return;
  log.warn(
    `export ${path}: it belongs to uid ${owner}, and in its sandbox the server is ${user ?? 'a root without privileges'}: ` +
      'let --user name its owner, or give it to the server',
  );
}

/** All that the user database is asked for, which is out of reach when the function returned makes the process that user. */
function userToBe(name: string, listen: readonly Endpoint[]): () => void {
  const { uid, gid } = userNamed(name)!;
  // Who runs the server is the owner of its sockets.
  for (const one of listen) {
    if (one.kind !== 'bound' || !one.file) continue;
    const given = 'group' in one.as && one.as.group !== undefined;
    lchownSync(one.file.path, uid, given ? -1 : gid);
  }
  (process as unknown as { initgroups(user: string, group: number): void }).initgroups(name, gid);
  process.setgid!(gid);
  return () => {
    process.setuid!(uid);
    try {
      for (const path of [main, addonPath]) accessSync(path, constants.R_OK);
      accessSync(process.execPath, constants.X_OK);
    } catch (error) {
      const { path } = error as NodeJS.ErrnoException;
      throw new ConfigError([`--user ${name}: that user may not read ${path}, a part of this program`]);
    }
  };
}

/** A socket to a process that stays outside: name services cannot be had in here. */
function startGroups(): number {
  if (!existsSync(groupsProgram))
    throw new ConfigError([`${groupsProgram} is missing: npm rebuild native-shims`]);
  const [ours, theirs] = socketPair();
  spawn(groupsProgram, { stdio: [theirs, 'ignore', 'inherit'], env: {} });
  closeFd(theirs);
  return ours;
}

function rulesFor(exports: readonly ExportOptions[], listen: readonly Endpoint[]): Rule[] {
  const rules = ownFiles();
  for (const { path, readonly } of exports)
    rules.push({ path: resolve(path), may: readonly ? 'read' : 'all' });
  for (const one of listen) {
    if (one.kind === 'bound' && one.file) rules.push({ path: dirname(one.file.path), may: 'remove' });
  }
  return rules;
}

/** What this program itself consists of: Node, its libraries and settings, our code and the packages it imports. */
function ownFiles(): Rule[] {
  const started = [process.execPath, ...sharedObjects()];
  const packages = ['pino', 'pino-pretty'].map(name => fileURLToPath(import.meta.resolve(name)));
  const ours = dirname(dirname(here));
  const read = [
    ...[
      ours,
      resolve(ours, '../package.json'),
      resolve(ours, '../node_modules'),
      addonPath,
      resolve(addonPath, '../../package.json'),
    ],
    ...packages.map(path => path.slice(0, path.indexOf('/node_modules/') + '/node_modules'.length)),
    ...['/etc/ld.so.cache', '/etc/localtime', '/usr/share/zoneinfo', '/dev/null'],
    ...['/proc/self/maps', '/proc/self/cgroup', '/proc/meminfo', ...memoryLimits()],
    ...[process.env.OPENSSL_CONF ?? '/etc/ssl/openssl.cnf', '/usr/lib/ssl/openssl.cnf'],
  ];
  return [
    ...started.map(path => ({ path, may: isStarted(path) ? 'execute' : 'read' }) as const),
    ...[...new Set(read)].map(path => ({ path, may: 'read' }) as const),
  ];
}

/** Libraries by the names under which the dynamic linker has found them, and will look for them again. */
function sharedObjects(): string[] {
  const { report } = process;
  // Node's types lack it: without, names of network peers would be asked for.
  (report as unknown as { excludeNetwork: boolean }).excludeNetwork = true;
  const { sharedObjects: names } = report!.getReport() as unknown as { sharedObjects: string[] };
  return names.filter(isAbsolute);
}

/**
 * Where the limits of this process's memory stand, by which Node chooses the size of its heap: cgroups(7). A group outside of
 * the process's cgroup namespace is named by way of `..`, which as a path would lead anywhere: cgroup_namespaces(7).
 */
function memoryLimits(): string[] {
  const groups = readFileSync('/proc/self/cgroup', 'utf8').matchAll(/^\d+:([^:]*):(.*)$/gm);
  return [...groups].flatMap(([, controllers, path]) => {
    if (path!.split('/').includes('..')) return [];
    if (controllers === '') return [`/sys/fs/cgroup${path}`];
    return controllers!.split(',').includes('memory') ? [`/sys/fs/cgroup/memory${path}`] : [];
  });
}

/** Node itself, and the dynamic linker, which the kernel executes on its behalf. */
function isStarted(path: string): boolean {
  return path === process.execPath || /\/(ld[-.]|ld64\.)[^/]*$/.test(path);
}
