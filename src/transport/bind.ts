import { ConfigError } from '#base/config-error.ts';
import { isListening } from '#host/sockets.ts';
import { closeFd } from '#host/vhost.ts';
import { type Endpoint, uriOf } from './endpoint.ts';
import { ListenError, listen, namedFd, removeSocket } from './listen.ts';

const nobody = (): void => undefined;

/**
 * Makes the sockets for all endpoints, or none: then rejects with `StartFaults` for all that failed. Connections wait in
 * them until a program listens to the endpoints this resolves to.
 */
export async function bindAll(
  endpoints: readonly Endpoint[],
  complain: (text: string) => void,
): Promise<Endpoint[]> {
  const bound: Endpoint[] = [];
  const problems: string[] = [];
  for (const endpoint of endpoints) {
    try {
      bound.push(await bind(endpoint, complain));
    } catch (error) {
      if (!(error instanceof ListenError)) {
        closeBound(bound);
        throw error;
      }
      problems.push(`${uriOf(endpoint)}: ${error.message}`);
    }
  }
  if (problems.length === 0) return bound;
  closeBound(bound);
  throw new ConfigError(problems);
}

async function bind(endpoint: Endpoint, complain: (text: string) => void): Promise<Endpoint> {
  // A connection that the process was started with is taken only once.
  const fd = endpoint.kind === 'named-fd' ? namedFd(endpoint.name) : 'fd' in endpoint ? endpoint.fd : -1;
  if (isListening(fd) === false) return { kind: 'fd', fd };
  const listener = await listen(endpoint, nobody, complain);
  return listener.detach();
}

/** Closes what `bindAll` has made. */
export function closeBound(bound: readonly Endpoint[]): void {
  for (const one of bound) {
    if (one.kind !== 'bound') continue;
    closeFd(one.fd);
    if (one.file) removeSocket(one.file);
  }
}
