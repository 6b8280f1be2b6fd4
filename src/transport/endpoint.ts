/** Where to listen. */
export type Endpoint =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  /** A descriptor that the process was started with: a listening socket, or a stream that is connected already. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** One that the service manager gave a name (FileDescriptorName= of systemd.socket(5)). */
  | { readonly kind: 'named-fd'; readonly name: string };

/** The forms of a URI, for texts that say what is possible. */
export const endpointForms = 'tcp://HOST:PORT, unix:///PATH, fd://NUMBER';

/** sockaddr_un holds 108 bytes with the NUL, unix(7). */
export const socketPathBytesMax = 107;

/** Reads a URI; a string says what is wrong with it. */
export function endpointOf(uri: string): Endpoint | string {
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/i.exec(uri) ?? [];
  if (scheme === undefined || rest === undefined) return `it is no URI: the forms are ${endpointForms}`;
  if (scheme === 'tcp') return tcpEndpoint(rest);
  if (scheme === 'unix') return unixEndpoint(rest);
  if (scheme === 'fd') return fdEndpoint(rest);
  return `nothing can be listened on by "${scheme}": the forms are ${endpointForms}`;
}

function tcpEndpoint(rest: string): Endpoint | string {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:.%a-z]+)\]|([^:[\]/?#]+)):([0-9]+)$/i.exec(rest) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined) {
    return 'host and port are needed, as in tcp://127.0.0.1:5640, tcp://[::1]:5640, or tcp://0.0.0.0:5640 for every IPv4 address';
  }
  if (port > 65535) return `there is no port ${digits}: the highest is 65535`;
  return { kind: 'tcp', host, port };
}

function unixEndpoint(path: string): Endpoint | string {
  if (!path.startsWith('/'))
    return 'the path must be absolute, with three slashes, as in unix:///run/ninepd.sock';
  if (path.endsWith('/') || path.includes('\0'))
    return 'the path must be that of a file, as in unix:///run/ninepd.sock';
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    return `the path is longer than a socket's can be (${socketPathBytesMax} bytes): choose a shorter one`;
  }
  return { kind: 'unix', path };
}

function fdEndpoint(rest: string): Endpoint | string {
  if (/^[0-9]+$/.test(rest)) {
    const fd = Number(rest);
    if (fd < 3)
      return 'descriptors 0, 1 and 2 are standard input, output and error: pass a socket as 3 or above';
    return { kind: 'fd', fd };
  }
  return /^[^/:]+$/.test(rest)
    ? { kind: 'named-fd', name: rest }
    : 'the number of a descriptor is needed, as in fd://3';
}
