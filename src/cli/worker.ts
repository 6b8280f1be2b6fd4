import { ConfigError } from '#base/config-error.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import { endUnfinished } from '#host/process.ts';
import { closeFd } from '#host/vhost.ts';
import { Server } from '#server.ts';
import { uriOf } from '#transport/endpoint.ts';
import { ListenError, sourceOf } from '#transport/listen.ts';
import type { Accept } from '#transport/listener.ts';
import { Channel, type Handoff, type Report } from '#workers/channel.ts';
import { channelDescriptor, workerVariable } from '#workers/worker.ts';
import { makeLogger } from './logging.ts';
import { parseCommandLine, type ServeOptions } from './options.ts';
import { applySeccomp, handedOver, hostServices } from './sandbox.ts';
import { defaultExport, defaultListen, graceMsMax, surviveFaults } from './serve.ts';

/** After which a report that the first process had no room for is tried again. */
const reportAgainMs = 100;

/** One of the processes of `--workers`: serves the connections that the first process hands to it. */
class WorkerProcess {
  readonly #channel: Channel<Report, Handoff>;
  #log: RateLimitedLog | undefined;
  #server: Server | undefined;
  #accepts: readonly Accept[] = [];
  #given = 0;
  #reported = 0;
  #again: NodeJS.Timeout | undefined;

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
    const exports = options.exports.length > 0 ? options.exports : [defaultExport];
    try {
      const handover = handedOver();
      if (handover) applySeccomp(handover, { ...options, exports }, 'serves', log);
      const connectionEnded = () => this.#report();
      const server = await Server.open({
        ...{ exports, msizeMax, limits, log, connectionEnded },
        ...hostServices(handover?.groups[0]),
      });
      // Sockets that a service manager has passed are not in `listen`, and none of them is a device.
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
    if (connection?.counted !== false) this.#given++;
    if (connection && descriptor !== undefined) {
      try {
        accept(sourceOf(descriptor), connection.peer);
      } catch (error) {
        const log = this.#log!.for(peerKey(connection.peer.origin));
        log.warn(`${connection.peer.label}: it cannot be served: ${error}`);
        closeFd(descriptor);
      }
    }
    this.#report();
  }

  /** Tells how many have ended, unless it is known. */
  #report(): void {
    const ended = this.#given - this.#server!.connections;
    if (ended === this.#reported) return;
    if (this.#channel.send({ ended })) this.#reported = ended;
    else
      this.#again ??= setTimeout(() => {
        this.#again = undefined;
        this.#report();
      }, reportAgainMs);
  }

  /** The first process says so by closing its end, or is no more. */
  async #stop(): Promise<void> {
    const inTime = (await this.#server?.close(graceMsMax)) ?? true;
    if (!inTime) endUnfinished();
    process.exit(0);
  }
}

// The terminal and service managers send these to every process; the first one decides what comes of them.
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => undefined);
const line = parseCommandLine(process.argv.slice(2));
if (line.command !== 'serve') throw new Error('This program is started by ninepd.');
await new WorkerProcess().start(line.options);
