import { ConfigError } from '#base/config-error.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import { closeFd } from '#host/fd.ts';
import { exitInOrder, exitUnfinished } from '#host/process.ts';
import { Server } from '#server.ts';
import { uriOf } from '#transport/endpoint.ts';
import { ListenError, sourceOf } from '#transport/listen.ts';
import type { Accept } from '#transport/listener.ts';
import { Channel, type Handoff, type Report } from '#workers/channel.ts';
import { channelDescriptor, workerVariable } from '#workers/worker.ts';
import { makeLogger } from './logging.ts';
import { parseCommandLine, type ServeOptions } from './options.ts';
import { applySeccomp, handedOver, hostServices } from './sandbox.ts';
import { defaultListen, exportsOf, graceMsMax, surviveFaults } from './serve.ts';

/** Delay before a report is sent again that did not fit into the channel. */
const reportAgainMs = 100;

/** A process of `--workers`: serves the connections that the main process passes to it. */
class WorkerProcess {
  readonly #channel: Channel<Report, Handoff>;
  #log: RateLimitedLog | undefined;
  #server: Server | undefined;
  #accepts: readonly Accept[] = [];
  #received = 0;
  #reported = 0;
  #retryTimer: NodeJS.Timeout | undefined;

  constructor() {
    this.#channel = new Channel(
      channelDescriptor,
      (connection, [descriptor]) => this.#take(connection, descriptor),
      () => void this.#stop(),
    );
  }

  async start(options: ServeOptions): Promise<void> {
    const { listen, msizeMax, limits, logLevel } = options;
    const log = makeLogger(logLevel, `worker ${process.env[workerVariable]}: `);
    this.#log = new RateLimitedLog(log);
    surviveFaults(log);
    const exports = exportsOf(options);
    try {
      const handover = handedOver();
      if (handover) applySeccomp(handover, { ...options, exports }, 'is a worker', log);
      const connectionEnded = () => this.#report();
      const server = await Server.open({
        ...{ exports, msizeMax, limits, log, connectionEnded },
        ...hostServices(handover?.groups[0], log),
      });
      // Sockets passed by a service manager are not in `listen`; none of them is a vhost-user endpoint.
      this.#accepts = (listen.length > 0 ? listen : [defaultListen]).map(endpoint => {
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
    if (connection?.counted !== false) this.#received++;
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
    const ended = this.#received - this.#server!.connections;
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
const line = parseCommandLine(process.argv.slice(2));
if (line.command !== 'serve') throw new Error('this program is started by ninepd');
await new WorkerProcess().start(line.options);
