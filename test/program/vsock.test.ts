import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { mountHint } from '#cli/mount-hint.ts';
import { bindVsock, vsockName, vsockPeer } from '#host/vsock.ts';
import { endpointOf } from '#transport/endpoint.ts';
import { ListenError, type Listener, listen } from '#transport/listen.ts';
import { anyCid, anyPort } from '#transport/vsock-address.ts';

describe('the URI of a vsock', () => {
  it('names a machine and a port', () => {
    const read = (uri: string) => {
      const endpoint = endpointOf(uri);
      return typeof endpoint === 'object' && endpoint.kind === 'vsock'
        ? [endpoint.cid, endpoint.port]
        : endpoint;
    };
    expect(read('vsock://2:5640')).toEqual([2, 5640]);
    expect(read('vsock://1')).toEqual([1, 564]);
    for (const any of ['any', '*', '-1', `${anyCid}`]) expect(read(`vsock://${any}:7`)).toEqual([anyCid, 7]);
    expect(read('vsock://any:4294967294')).toEqual([anyCid, 4294967294]);
  });

  it('is refused with words that say what is wrong', () => {
    const wrong = {
      'vsock://': 'vsock://any:5640',
      'vsock://:564': 'vsock://any:5640',
      'vsock://host:564': 'vsock://any:5640',
      'vsock://2:564/x': 'vsock://any:5640',
      'vsock://4294967296:564': 'no CID 4294967296',
      'vsock://2:4294967295': 'the highest is 4294967294',
    };
    for (const [uri, words] of Object.entries(wrong)) expect(endpointOf(uri), uri).toContain(words);
  });
});

describe('the hint how to mount over vsock', () => {
  const hint = (uri: string) => mountHint(uri, { name: 'files' }, 65536);
  const command = 'mount -t 9pvsock -o msize=65536,aname=files,access=client';

  it('calls the host as its guests do, and leaves out 9P’s own port', () => {
    expect(hint('vsock://any:564')).toBe(`in a guest with vsock: ${command} 2 /mnt`);
    expect(hint('vsock://2:5640')).toBe(`in a guest with vsock: ${command} 2:5640 /mnt`);
    expect(hint('vsock://1:5640')).toBe(`on this machine: ${command} 1:5640 /mnt`);
  });

  it('takes a Unix socket that is named as a hybrid vsock’s for one', () => {
    expect(hint('unix:///run/vm1.vsock_564')).toBe(
      `in the guest with this vsock: ${command.replace('65536', '32768')} 2 /mnt`,
    );
    expect(hint('unix:///run/vm1.sock')).toContain('trans=unix');
  });
});

describe('a vsock listener', () => {
  const said: string[] = [];
  const none = () => undefined;
  const listenOn = (cid: number, port: number) =>
    listen({ kind: 'vsock', cid, port }, none, t => said.push(t));
  // Depends on this machine's kernel; both cases are tested.
  const bound = bindVsock({ cid: anyCid, port: anyPort });

  function refusal(cid: number, port: number): Promise<string> {
    return listenOn(cid, port).then(
      listener => `listens on ${listener.uri}`,
      fault => (fault instanceof ListenError ? fault.message : Promise.reject(fault)),
    );
  }

  it('says which port the system chose, and what to do about a port in use or a CID of another machine', async () => {
    if (bound < 0) {
      expect(await refusal(anyCid, 0)).toMatch(/no vsock: modprobe vhost_vsock/);
      return;
    }
    const first: Listener = await listenOn(anyCid, 0);
    const port = Number(/^vsock:\/\/any:(\d+)$/.exec(first.uri)?.[1]);
    expect(port).toBeGreaterThan(1023);
    expect(await refusal(anyCid, port)).toMatch(/in use.*ss --vsock/);
    expect(await refusal(77, 0)).toMatch(/no CID 77: its own CID is what/);
    first.close();
    const again = await listenOn(anyCid, port);
    again.close();
  });

  it('warns where no guest can come, and says which module is missing', async () => {
    if (bound < 0) return expect(bound).toBe(-97);
    const [hosts, loops] = [existsSync('/dev/vhost-vsock'), existsSync('/sys/module/vsock_loopback')];
    said.length = 0;
    (await listenOn(anyCid, 0)).close();
    expect(said.filter(text => text.includes('modprobe vhost_vsock'))).toHaveLength(hosts || loops ? 0 : 1);
    if (!hosts) expect(await refusal(2, 0)).toMatch(/no CID 2: .* modprobe vhost_vsock/);
    if (!loops) expect(await refusal(1, 0)).toMatch(/no CID 1: .* modprobe vsock_loopback/);
  });

  it('knows its own descriptors from those of other families', () => {
    expect(vsockName(0)).toBeUndefined();
    expect(vsockPeer(0)).toBeUndefined();
    if (bound >= 0) expect(vsockName(bound)?.port).toBeGreaterThan(1023);
  });

  it('needs a privilege for the ports below 1024, as with TCP', () => {
    const program = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
    const without = ['setpriv', '--bounding-set=-net_bind_service', '--inh-caps=-net_bind_service', '--'];
    const command = [...(process.getuid!() === 0 ? without : []), process.execPath, program];
    command.push('serve', '/tmp', '--listen', 'vsock://any');
    const { status, stderr } = spawnSync(command[0]!, command.slice(1), {
      encoding: 'utf8',
      timeout: 20_000,
    });
    expect(status, stderr).toBe(2);
    expect(stderr).toMatch(/vsock:\/\/any:564: (port 564 is privileged|this kernel has no vsock)/);
  });
});
