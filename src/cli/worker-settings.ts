import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { closeFd } from '#host/fd.ts';
import { type Confinement, launch } from '#host/launch.ts';
import { channelDescriptor, type Program } from '#workers/worker.ts';
import type { ServeOptions } from './options.ts';
import { type Confined, startGroups } from './sandbox.ts';

/** What a worker process is told. It knows nothing else of the command line. */
export interface WorkerSettings {
  /** Only the exports and listeners that the worker serves. */
  readonly options: ServeOptions;
  /** There are exports of which the worker is not told. */
  readonly moreExports: boolean;
  /** Start of each log line. */
  readonly prefix: string;
  /** How the process is confined already; absent with the sandbox off. */
  readonly confined?: Confined;
  /** Descriptor of a socket to `ninepd-groups`. */
  readonly groups?: number;
}

export interface ProgramOptions extends Omit<WorkerSettings, 'groups'> {
  /** How `ninepd-launch` confines the process; absent: it is started as this process is. */
  readonly confinement?: Confinement;
  /** A socket to `ninepd-groups`; 'start' starts that program. */
  readonly groups?: number | 'start' | undefined;
}

const script = fileURLToPath(import.meta.url).replace(/worker-settings(\.[jt]s)$/, 'worker$1');
/** The service manager's variables, for the main process only: sd_listen_fds(3), sd_notify(3). */
const notForWorkers = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'NOTIFY_SOCKET'];

/** The program of a worker. */
export function workerProgram({ confinement, groups, ...settings }: ProgramOptions): Program {
  const env: NodeJS.ProcessEnv = { ...process.env };
  for (const name of notForWorkers) delete env[name];
  const { execPath, argv0, execArgv } = process;
  return {
    settings: { ...settings, ...(groups === undefined ? {} : { groups: channelDescriptor + 1 }) },
    start(channel) {
      const started = groups === 'start' ? startGroups() : undefined;
      const given = started ?? (groups as number | undefined);
      const descriptors = [channel, ...(given === undefined ? [] : [given])];
      try {
        if (!confinement)
          return spawn(execPath, [...execArgv, script], {
            env,
            stdio: ['ignore', 'inherit', 'inherit', ...descriptors],
          });
        // Certificates are for TLS alone, and out of reach.
        const confinedEnv = { ...env, NODE_EXTRA_CA_CERTS: undefined };
        return launch(confinement, {
          path: execPath,
          args: [argv0, ...execArgv, script],
          env: confinedEnv,
          descriptors,
        });
      } finally {
        if (started !== undefined) closeFd(started);
      }
    },
  };
}
