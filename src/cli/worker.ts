import { ConfigError } from '#base/config-error.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import { closeFd } from '#host/fd.ts';
import { exitInOrder, exitUnfinished } from '#host/process.ts';
import { Server } from '#server.ts';
import { uriOf } from '#transport/endpoint.ts';
import { ListenError, sourceOf } from '#transport/listen.ts';
import type { Accept } from '#transport/listener.ts';
import { Channel, type Handoff, type Report, type SettingsPart } from '#workers/channel.ts';
import { channelDescriptor } from '#workers/worker.ts';
import { graceMsMax, surviveFaults } from './faults.ts';
import { makeLogger } from './logging.ts';
import { applySeccomp, hostServices } from './sandbox.ts';
import type { WorkerSettings } from './worker-settings.ts';

/** Delay before a report is sent again that did not fit into the channel. */
const reportAgainMs = 100;

/** A worker process: serves the connections that the main process passes to it. */
class WorkerProcess {
  readonly #channel: Channel<Report>;
  #log: RateLimitedLog | undefined;
  #server: Server | undefined;
  #accepts: readonly Accept[] = [];
  #settings = '';
  #received = 0;
  #reported = 0;
  #retryTimer: NodeJS.Timeout | undefined;

  constructor() {
    this.#channel = new Channel(
      channelDescriptor,
      (message, [descriptor]) => {
        if (this.#server) this.#take(message as Handoff | undefined, descriptor);
        else this.#collect(message as SettingsPart);
      },
      () => void this.#stop(),
    );
  }

  #collect({ settings, last }: SettingsPart): void {
    this.#settings += settings;
    if (last) void this.#start(JSON.parse(this.#settings) as WorkerSettings);
  }

  async #start({ options, moreExports, prefix, confined, groups }: WorkerSettings): Promise<void> {
    const { exports, listen, msizeMax, limits, logLevel } = options;
    const log = makeLogger(logLevel, prefix);
    this.#log = new RateLimitedLog(log);
    surviveFaults(log);
    try {
      if (confined) applySeccomp(confined, options, 'is a worker', log);
      const connectionEnded = () => this.#report();
      const server = await Server.open({
        ...{ exports, msizeMax, limits, log, moreExports, connectionEnded },
        ...hostServices(groups, log),
      });
      this.#accepts = listen.map(endpoint => {
        try {
          return server.acceptFor(endpoint);
        } catch (error) {
          throw error instanceof ListenError
            ? new ConfigError([`${uriOf(endpoint)}: ${error.message}`])
            : error;
        }
      });
      this.#server = server;
      this.#channel.send({ ended: 0 });
    } catch (error) {
      this.#channel.send({ problems: error instanceof ConfigError ? error.problems : [`${error}`] });
      process.exit(2);
    }
  }

  #take(connection: Handoff | undefined, descriptor: number | undefined): void {
    const accept = this.#accepts[connection?.endpoint ?? 0] ?? this.#accepts[0]!;
    this.#received++;
    if (connection && descriptor !== undefined) {
      try {
        accept(sourceOf(descriptor), connection.peer);
      } catch (error) {
        const log = this.#log!.for(peerKey(connection.peer.origin));
        log.warn(`${connection.peer.label}: cannot be served: ${error}`);
        closeFd(descriptor);
      }
    }
    this.#report();
  }

  /** Reports how many connections have ended, if that has changed. */
  #report(): void {
    const { connections, monitors } = this.#server!;
    const ended = this.#received - connections - monitors;
    if (ended === this.#reported) return;
    if (this.#channel.send({ ended })) this.#reported = ended;
    else
      this.#retryTimer ??= setTimeout(() => {
        this.#retryTimer = undefined;
        this.#report();
      }, reportAgainMs);
  }

  /** Called when the main process has closed its end of the channel, or has ended. */
  async #stop(): Promise<void> {
    const inTime = (await this.#server?.close(graceMsMax)) ?? true;
    if (!inTime) exitUnfinished();
    exitInOrder();
  }
}

// Terminals and service managers signal every process; the main process handles the signal.
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => undefined);
new WorkerProcess();
