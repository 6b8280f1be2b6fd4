import { ConfigError } from '#base/config-error.ts';
import { closeFd } from '#host/fd.ts';
import { isListening } from '#host/sockets.ts';
import { type Endpoint, uriOf } from './endpoint.ts';
import { ListenError, listen, namedFd, removeSocket } from './listen.ts';

const ignore = (): void => undefined;

/**
 * Binds a socket for every endpoint. If any fails, closes the others and rejects with a `ConfigError` that lists every failure.
 * Connections queue in the sockets until something listens on the endpoints that this resolves to.
 */
export async function bindAll(
  endpoints: readonly Endpoint[],
  warn: (text: string) => void,
): Promise<Endpoint[]> {
  const bound: Endpoint[] = [];
  const problems: string[] = [];
  for (const endpoint of endpoints) {
    try {
      bound.push(await bind(endpoint, warn));
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

async function bind(endpoint: Endpoint, warn: (text: string) => void): Promise<Endpoint> {
  // An inherited connection can be accepted only once, so it stays a descriptor.
  const fd = endpoint.kind === 'named-fd' ? namedFd(endpoint.name) : 'fd' in endpoint ? endpoint.fd : -1;
  if (isListening(fd) === false) return { kind: 'fd', fd };
  const listener = await listen(endpoint, ignore, warn);
  return listener.detach();
}

/** Closes the sockets that `bindAll` made, and removes their files. */
export function closeBound(bound: readonly Endpoint[]): void {
  for (const one of bound) {
    if (one.kind !== 'bound') continue;
    closeFd(one.fd);
    if (one.file) removeSocket(one.file);
  }
}
