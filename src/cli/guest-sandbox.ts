import type { Logger } from '#base/log.ts';
import { type Confinement, canLaunch, type LinuxNamespace } from '#host/launch.ts';
import { boundCapabilities, keepCapabilities, landlockAbi } from '#host/sandbox.ts';
import { refuseDescriptors } from '#host/sockets.ts';
import type { Endpoint } from '#transport/endpoint.ts';
import type { ServeOptions } from './options.ts';
import { mountsFor } from './private-root.ts';
import {
  aboveStandard,
  capabilitiesFor,
  filterCalls,
  giveSockets,
  type Handover,
  isDevice,
  rulesFor,
  runAgain,
  usersOf,
  warnOfPrivateMounts,
  workingDirectory,
} from './sandbox.ts';

/**
 * The first run where each guest has a worker. The main process reads nothing that a guest sends, and keeps the
 * capabilities that `ninepd-launch` needs to confine workers.
 */
export async function enterMain(
  options: ServeOptions,
  bound: readonly Endpoint[],
  notify: number | undefined,
  log: Logger,
): Promise<never> {
  const { exports, user } = options;
  const listen = bound.map(aboveStandard);
  for (const one of listen) if ('fd' in one && !isDevice(one)) refuseDescriptors(one.fd);
  if (user !== undefined) giveSockets(user, listen);
  const namespaces = await namespacesFor(options, log);
  const abi = landlockAbi();
  warnOfPrivateMounts(exports, log);
  const capabilities = [...forLaunch, ...capabilitiesFor(options)];
  boundCapabilities(capabilities);
  keepCapabilities(capabilities);
  filterCalls('pre-exec');
  return runAgain({
    ...{ listen, workers: options.workers, sandbox: true, privateRoot: false, groups: [] },
    ...(namespaces ? { namespaces } : {}),
    ...(abi === undefined ? {} : { landlock: abi }),
    ...(notify === undefined ? {} : { notify }),
  });
}

/** Capabilities of root that `ninepd-launch` needs. */
const forLaunch = [
  'CAP_SYS_ADMIN',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SETGID',
  'CAP_DAC_READ_SEARCH',
  'CAP_SYS_CHROOT',
];
const namespacesOfWorker = ['pid', 'network', 'ipc', 'uts'] as const;

/**
 * The namespaces that workers can have: with a private root, as root or in a user namespace, which some hosts forbid
 * (user.max_user_namespaces, AppArmor). Undefined: neither.
 */
async function namespacesFor({ exports }: ServeOptions, log: Logger): Promise<LinuxNamespace[] | undefined> {
  const candidates: LinuxNamespace[][] = [];
  if (process.getuid!() === 0) candidates.push([...namespacesOfWorker]);
  if (!usersOf(exports)) candidates.push(['user', ...namespacesOfWorker]);
  for (const namespaces of candidates) {
    if (await canLaunch({ namespaces, root: [{ path: '/proc', is: 'proc' }], capabilities: [] }))
      return namespaces;
  }
  log.warn(
    'sandbox: workers can have no namespaces and no private root directory here (no root, and no user namespaces): the processes ' +
      'of their user, and names, owners, modes and attributes of files outside the exports remain accessible',
  );
  return undefined;
}

/** How the worker of one guest is confined. */
export function confinementOf(
  options: ServeOptions,
  { namespaces, landlock: abi }: Handover,
  user: Confinement['user'] | undefined,
): Confinement {
  const rules = rulesFor(options.exports, []);
  const directory = workingDirectory();
  const root = namespaces && mountsFor(rules, directory, 'own');
  const capabilities = capabilitiesFor(options);
  const isRoot = process.getuid!() === 0;
  return {
    ...(namespaces && root ? { namespaces, root } : {}),
    limits: { core: 0 },
    ...(isRoot ? { bound: capabilities } : {}),
    ...(user ? { user } : {}),
    capabilities,
    ...(abi === undefined ? {} : { landlock: rules }),
    directory,
  };
}

/** The filter of the second run of `enterMain`. */
export function applyConfinerSeccomp(log: Logger): void {
  if (!filterCalls('confiner'))
    log.warn('sandbox: this kernel does not filter system calls: all of them are allowed');
}
