import { once } from 'node:events';
import { linkSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { dupCloexec } from '#host/fd.ts';
import { fdOf } from '#transport/handle.ts';
import type { Source } from '#transport/stream.ts';
import { acceptFrom, connectedVsock } from '#transport/vsock.ts';

// Making a net.Socket from a descriptor of a family that Node does not know uses internals of this version of Node. They do not
// depend on the family, so this tests a Unix socket; the guest tests use AF_VSOCK.

const none = () => undefined;

function socketOf(source: Source): net.Socket {
  const options = { ...source, readable: true, writable: true };
  return new net.Socket(options as unknown as net.SocketConstructorOpts);
}

it('a listening descriptor accepts connections that carry bytes both ways, until it is closed', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'ninepd-handle-'));
  const path = join(dir, 's');
  const original = net.createServer().listen(path);
  await once(original, 'listening');
  const fd = dupCloexec(fdOf(original));
  // Two listeners would race for each connection. Closing unlinks the path, so a second link keeps the socket.
  linkSync(path, join(dir, 't'));
  original.close();
  const accepted: net.Socket[] = [];
  const close = acceptFrom(
    fd,
    source => {
      const socket = socketOf(source);
      accepted.push(socket.on('data', chunk => socket.write(chunk)));
    },
    none,
  );
  const client = net.connect(join(dir, 't'));
  const bytes = Buffer.alloc(1 << 20, 'x');
  client.write(bytes);
  let count = 0;
  for await (const chunk of client) {
    count += (chunk as Buffer).length;
    if (count === bytes.length) break;
  }
  expect(count).toBe(bytes.length);
  accepted[0]!.destroy();
  close();
  const late = net.connect(join(dir, 't'));
  const [error] = (await once(late, 'error')) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNREFUSED');
  rmSync(dir, { recursive: true });
});

it('a connected descriptor is a connection', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'ninepd-handle-'));
  const server = net.createServer().listen(join(dir, 's'));
  await once(server, 'listening');
  const client = net.connect(join(dir, 's'));
  const [there] = (await once(server, 'connection')) as [net.Socket];
  const taken = socketOf(connectedVsock(dupCloexec(fdOf(there))));
  taken.write('hello');
  const [chunk] = (await once(client, 'data')) as [Buffer];
  expect(chunk.toString()).toBe('hello');
  for (const one of [taken, there, client]) one.destroy();
  server.close();
  rmSync(dir, { recursive: true });
});
