import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, lchownSync, readFileSync, statSync } from 'node:fs';
import { dirname, isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '#base/config-error.ts';
import { Errno } from '#base/errno.ts';
import type { Logger } from '#base/log.ts';
import type { ExportOptions } from '#exports/exports.ts';
import { isTreeModule, treeModuleReads, treeModuleSandboxProblems } from '#exports/tree-module.ts';
import { addonPath } from '#host/addon.ts';
import { closeFd, dupCloexec } from '#host/fd.ts';
import type { LinuxNamespace } from '#host/launch.ts';
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
import { type ModelEntry, modelEntry, modelsWhere } from '#security/models.ts';
import { asksForGroups } from '#security/squash.ts';
import type { ServerOptions } from '#server.ts';
import { type Endpoint, purposeOf } from '#transport/endpoint.ts';
import { readyForVsock } from '#transport/vsock.ts';
import type { ServeOptions } from './options.ts';
import { mountsFor, privateMounts } from './private-root.ts';

/** How a process is confined before it filters its system calls. */
export interface Confined {
  /** False: only the user was changed. */
  readonly sandbox: boolean;
  /** Whether the process has a private root directory. */
  readonly privateRoot: boolean;
  /** Landlock's ABI; missing on a kernel without Landlock. */
  readonly landlock?: number;
}

/**
 * What the first run passes to the second. The program runs twice in one process: the first run binds the sockets, drops
 * privileges and executes the program again. Landlock and capabilities belong to threads, and Node starts threads before any
 * JavaScript runs, so only what execve(2) inherits holds for all of them. The second run opens the exports and installs the
 * seccomp filter before it accepts connections.
 */
export interface Handover extends Confined {
  readonly listen: readonly Endpoint[];
  /** As counted by the first run: in the sandbox `--workers auto` cannot read the limits of the control group. */
  readonly workers: number;
  /** Sockets to `ninepd-groups`, one for each serving process. */
  readonly groups: readonly number[];
  /** Namespaces that workers can have; absent where workers need none or can have none. */
  readonly namespaces?: readonly LinuxNamespace[];
  /** The socket to the service manager. */
  readonly notify?: number;
}

const variable = 'NINEPD_HANDOVER';

/** What the first run has passed, at the first call; undefined in the first run. Child processes inherit none of it. */
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

/** Replaces an inherited descriptor by a close-on-exec one. */
function dupInherited(fd: number): number {
  const kept = dupCloexec(fd);
  closeFd(fd);
  return kept;
}

/** Services of a process outside the sandbox: user groups. */
export function hostServices(groups: number | undefined, log: Logger): Pick<ServerOptions, 'groupsOf'> {
  if (groups === undefined) return {};
  return { groupsOf: new UserDatabase(groups, text => log.error(text)).groupsOf };
}

/** Problems of the sandbox's options. */
export function sandboxFaults({ exports, sandbox, user, trustedXattrs }: ServeOptions): string[] {
  const problems = sandbox ? exports.flatMap(treeModuleSandboxProblems) : [];
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

/** The exports that are directories of the host. */
function directories(exports: readonly ExportOptions[]): readonly ExportOptions[] {
  return exports.filter(one => !isTreeModule(one));
}

/** The distinct models of the exports. */
function modelsOf(exports: readonly ExportOptions[]): ModelEntry[] {
  return [...new Set(directories(exports).map(({ securityModel }) => modelEntry(securityModel)!))];
}

/** Names of the models whose host calls run as the guests' users. */
function actingAsGuests(models: readonly ModelEntry[]): string[] {
  return models.filter(({ needs }) => needs.guestCreds).map(({ name }) => name);
}

/** Whether threads take the credentials of guests' users. */
export function usersOf(exports: readonly ExportOptions[]): boolean {
  return actingAsGuests(modelsOf(exports)).length > 0;
}

export function groupsWanted(exports: readonly ExportOptions[]): boolean {
  return directories(exports).some(
    one => modelEntry(one.securityModel)!.needs.guestCreds && asksForGroups(one),
  );
}

/** Whether the program must run twice. */
export function runsTwice(options: ServeOptions): boolean {
  return options.sandbox || options.user !== undefined;
}

/** Ends the first run by execve(2). Throws `ConfigError`. */
export function enterSandbox(
  options: ServeOptions,
  bound: readonly Endpoint[],
  notify: number | undefined,
  log: Logger,
): never {
  const { exports, sandbox, user } = options;
  if (sandbox) for (const one of directories(exports)) warnOfOwner(one, options, log);
  const groups = sandbox && groupsWanted(exports) ? Array.from({ length: options.workers }, startGroups) : [];
  const listen = bound.map(aboveStandard);
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
  if (sandbox) filterCalls('pre-exec');
  const handover: Handover = {
    ...{ listen, workers: options.workers, sandbox, privateRoot: rooted, groups },
    ...(abi === undefined ? {} : { landlock: abi }),
    ...(notify === undefined ? {} : { notify }),
  };
  return runAgain(handover);
}

/** A connection at a standard descriptor is moved: standard input of the second run is /dev/null. */
export function aboveStandard(one: Endpoint): Endpoint {
  return one.kind === 'fd' && one.fd <= 2 ? { ...one, fd: dupCloexec(one.fd) } : one;
}

/** Only monitors pass descriptors. */
export const isDevice = (one: Endpoint) => purposeOf(one).kind === 'vhost-user';

/** Installs the filter; false on a kernel without filters. Throws `ConfigError` if it has them and installing one fails. */
export function filterCalls(...filter: Parameters<typeof installSeccomp>): boolean {
  try {
    return installSeccomp(...filter);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    throw new ConfigError([
      `sandbox: system calls cannot be filtered (${error}): give the process more memory, or accept the risk with --sandbox off`,
    ]);
  }
}

/** Logs the exports in which later mounts of the host do not appear. */
export function warnOfPrivateMounts(exports: readonly ExportOptions[], log: Logger): void {
  const unfollowed = privateMounts(directories(exports).map(({ path }) => resolve(path)));
  if (unfollowed.length === 0) return;
  log.info(
    `sandbox: mounts and unmounts of the host in ${unfollowed.join(', ')} have no effect from now on, ` +
      'since mounts are private there: to change that, run mount --make-rshared / before the start',
  );
}

/** Enters a private root directory, which needs root; true if that succeeded. */
function enterRoot(rules: readonly Rule[], { exports }: ServeOptions, log: Logger): boolean {
  if (process.getuid!() !== 0) return false;
  const directory = workingDirectory();
  const places = mountsFor(rules, directory);
  if (places === undefined) return false;
  warnOfPrivateMounts(exports, log);
  const failed = enterPrivateRoot(places);
  if (failed !== undefined) {
    // The capabilities of passthrough apply to every file.
    const level = usersOf(exports) ? 'warn' : 'info';
    log[level](
      `sandbox: no private root directory is possible (${failed}): ` +
        'names, owners, modes and attributes of files outside the exports remain accessible',
    );
    return false;
  }
  process.chdir(directory);
  return true;
}

/** The working directory; `/` if it was removed. */
export function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}

export function runAgain(handover: Handover): never {
  const { execPath, argv0, execArgv, argv, env } = process;
  const { listen, groups, notify } = handover;
  const sockets = listen.flatMap(one => ('fd' in one ? [one.fd] : []));
  const descriptors = [...sockets, ...groups, ...(notify === undefined ? [] : [notify])];
  // The sandbox cannot read it; only TLS needs it.
  const settings = { NODE_EXTRA_CA_CERTS: undefined };
  const again = [argv0, ...execArgv, main, ...argv.slice(2)];
  return execute(execPath, again, { ...env, ...settings, [variable]: JSON.stringify(handover) }, descriptors);
}

const here = fileURLToPath(import.meta.url);
const main = here.replace(/sandbox(\.[jt]s)$/, 'main$1');

/**
 * Installs the seccomp filter in the second run, before it accepts connections: every thread can make only the calls that a
 * server needs. The main process of workers may also start processes. They inherit its filter and add the narrower one; it
 * reads nothing from guests.
 */
export function applySeccomp(
  { sandbox, privateRoot: rooted, landlock: abi }: Confined,
  { exports, listen }: ServeOptions,
  role: 'serves' | 'is a worker' | 'starts workers',
  log: Logger,
): void {
  if (!sandbox) return;
  readyForVsock();
  const users = usersOf(exports);
  const modes = modelsOf(exports).some(({ needs }) => needs.modes);
  const descriptors = role === 'is a worker' || listen.some(isDevice);
  const filtered =
    role === 'starts workers'
      ? filterCalls('launcher')
      : filterCalls('server', { users, descriptors, modes });
  if (abi === undefined) {
    log.warn(
      `sandbox: this kernel has no Landlock (Linux 5.19 or later, and lsm=landlock,…): only ${rooted ? 'the private root directory keeps' : 'permissions keep'} this process from files outside its exports`,
    );
  }
  if (!filtered) log.warn('sandbox: this kernel does not filter system calls: all of them are allowed');
  const parts = [
    ...(rooted ? ['a private root directory'] : []),
    ...(abi === undefined ? [] : [`Landlock (ABI ${abi})`]),
    ...(filtered ? ['filtered system calls'] : []),
    users ? `only the capabilities of ${actingAsGuests(modelsOf(exports)).join(' and ')}` : 'no capabilities',
  ];
  log.info(`sandbox: ${parts.join(', ')}`);
}

/** Capabilities that root keeps: those that the models need. With passthrough a guest's root is root, without CAP_SYS_ADMIN. */
export function capabilitiesFor({ exports, trustedXattrs }: ServeOptions): string[] {
  const needs = modelsOf(exports).flatMap(({ needs }) => [
    ...needs.capabilities,
    ...needs.furtherCapabilities,
    ...(trustedXattrs && needs.trustedXattrs ? ['CAP_SYS_ADMIN'] : []),
  ]);
  return [...new Set(needs)];
}

/** Warns if the server does not own the export: root without capabilities has no more rights than other users. */
function warnOfOwner({ path, securityModel }: ExportOptions, { user }: ServeOptions, log: Logger): void {
  if (modelEntry(securityModel)!.needs.guestCreds || process.getuid!() !== 0) return;
  const { uid: owner } = statSync(path);
  const server = user === undefined ? 0 : userNamed(user)?.uid;
  if (owner === server) return;
  log.warn(
    `export ${path}: it belongs to uid ${owner}, and in its sandbox the server is ${user ?? 'root without capabilities'}: ` +
      'name its owner with --user, or change its owner to the server',
  );
}

/** The server's user owns its sockets. */
export function giveSockets(name: string, listen: readonly Endpoint[]): void {
  const { uid, gid } = userNamed(name)!;
  for (const one of listen) {
    if (one.kind !== 'bound' || !one.file) continue;
    const given = 'group' in one.as && one.as.group !== undefined;
    lchownSync(one.file.path, uid, given ? -1 : gid);
  }
}

/** Looks the user up while the user database is accessible; the returned function changes to that user. */
function userToBe(name: string, listen: readonly Endpoint[]): () => void {
  const { uid, gid } = userNamed(name)!;
  giveSockets(name, listen);
  (process as unknown as { initgroups(user: string, group: number): void }).initgroups(name, gid);
  process.setgid!(gid);
  return () => {
    process.setuid!(uid);
    try {
      for (const path of [main, addonPath]) accessSync(path, constants.R_OK);
      accessSync(process.execPath, constants.X_OK);
    } catch (error) {
      const { path } = error as NodeJS.ErrnoException;
      throw new ConfigError([`--user ${name}: this user may not read ${path}, which belongs to the program`]);
    }
  };
}

/** A socket to a process outside the sandbox, where name services work. */
export function startGroups(): number {
  if (!existsSync(groupsProgram))
    throw new ConfigError([
      `${groupsProgram} is missing: it belongs beside the native addon; install ninepd again`,
    ]);
  const [ours, theirs] = socketPair();
  spawn(groupsProgram, { stdio: [theirs, 'ignore', 'inherit'], env: {} });
  closeFd(theirs);
  return ours;
}

export function rulesFor(exports: readonly ExportOptions[], listen: readonly Endpoint[]): Rule[] {
  const rules = ownFiles();
  for (const one of exports) {
    if (isTreeModule(one)) rules.push(...treeModuleReads(one).map(path => ({ path, may: 'read' }) as const));
    else rules.push({ path: resolve(one.path), may: one.readonly ? 'read' : 'all' });
  }
  for (const one of listen) {
    if (one.kind === 'bound' && one.file) rules.push({ path: dirname(one.file.path), may: 'remove' });
  }
  return rules;
}

/** Files of the program: Node, its libraries and settings, this code and the packages that it imports. */
function ownFiles(): Rule[] {
  const started = [process.execPath, ...sharedObjects()];
  const ours = dirname(dirname(here));
  const read = [
    ...[ours, resolve(ours, '../package.json'), resolve(ours, '../node_modules'), addonPath],
    ...['/etc/ld.so.cache', '/etc/localtime', '/usr/share/zoneinfo', '/dev/null'],
    ...['/proc/self/maps', '/proc/self/cgroup', '/proc/meminfo', ...memoryLimits()],
    ...[process.env.OPENSSL_CONF ?? '/etc/ssl/openssl.cnf', '/usr/lib/ssl/openssl.cnf'],
  ];
  return [
    ...started.map(path => ({ path, may: isStarted(path) ? 'execute' : 'read' }) as const),
    ...[...new Set(read)].map(path => ({ path, may: 'read' }) as const),
  ];
}

/** Loaded libraries, by the names under which the dynamic linker looks for them. */
function sharedObjects(): string[] {
  const { report } = process;
  // Missing in Node's types. Without it the report resolves names of network peers.
  (report as unknown as { excludeNetwork: boolean }).excludeNetwork = true;
  const { sharedObjects: names } = report!.getReport() as unknown as { sharedObjects: string[] };
  return names.filter(isAbsolute);
}

/**
 * Files with this process's memory limits (cgroups(7)), from which Node computes its heap size. A group outside the process's
 * cgroup namespace is shown with `..` (cgroup_namespaces(7)) and left out, since as a path it could lead anywhere.
 */
function memoryLimits(): string[] {
  const groups = readFileSync('/proc/self/cgroup', 'utf8').matchAll(/^\d+:([^:]*):(.*)$/gm);
  return [...groups].flatMap(([, controllers, path]) => {
    if (path!.split('/').includes('..')) return [];
    if (controllers === '') return [`/sys/fs/cgroup${path}`];
    return controllers!.split(',').includes('memory') ? [`/sys/fs/cgroup/memory${path}`] : [];
  });
}

/** Node, and the dynamic linker, which the kernel executes for it. */
function isStarted(path: string): boolean {
  return path === process.execPath || /\/(ld[-.]|ld64\.)[^/]*$/.test(path);
}
