import { availableParallelism } from 'node:os';
import { describe, expect, it } from 'vitest';
import { numberAsInC, splitAtCommas } from '#cli/export-option.ts';
import { mountHint } from '#cli/mount-hint.ts';
import { parseCommandLine } from '#cli/options.ts';
import { type Endpoint, endpointOf, uriOf } from '#transport/endpoint.ts';

function serve(...args: string[]) {
  const line = parseCommandLine(args);
  if (line.command !== 'serve') throw new Error(`it is ${line.command}`);
  return line;
}

/** The only problem of these arguments. */
function problem(...args: string[]): string {
  const { problems } = serve(...args);
  expect(problems).toHaveLength(1);
  return problems[0]!;
}

describe('the command line', () => {
  it('serves with defaults without arguments', () => {
    expect(serve()).toEqual({
      command: 'serve',
      problems: [],
      options: {
        ...{ exports: [], listen: [], msizeMax: 1048576, limits: {}, workers: 1, logLevel: 'info' },
        ...{ sandbox: true, user: undefined, trustedXattrs: false, insecureLoopback: false },
        isolation: 'none',
        ...{ securityModel: 'mapped', quickStart: true },
      },
    });
  });

  it('accepts help and version as commands and as options', () => {
    expect(parseCommandLine(['help']).command).toBe('help');
    expect(parseCommandLine(['serve', 'x', '--help']).command).toBe('help');
    expect(parseCommandLine(['-h']).command).toBe('help');
    expect(parseCommandLine(['version']).command).toBe('version');
    expect(parseCommandLine(['--version']).command).toBe('version');
  });

  it('puts DIR before the exports and gives the default model to those without one', () => {
    const { options, problems } = serve(
      ...['serve', 'dir', '--security-model', 'passthrough', '--export', '/a,name=A'],
      ...[
        '--export=/b,security_model=mapped,readonly=on,fmode=0644,dmode=0755,multidevs=forbid,freezable=on',
      ],
    );
    expect(problems).toEqual([]);
    expect(options.exports).toEqual([
      { path: 'dir', securityModel: 'passthrough' },
      { path: '/a', name: 'A', securityModel: 'passthrough' },
      {
        ...{ path: '/b', securityModel: 'mapped', readonly: true, fmode: 0o644, dmode: 0o755 },
        ...{ freezable: true, multidevs: 'forbid' },
      },
    ]);
  });

  it('takes a first word with a slash or dot for the directory to serve', () => {
    for (const path of ['./project', '/srv/files', '.', '..', 'a/b']) {
      const { options, problems } = serve(path, '--log-level', 'warn');
      expect([options.exports[0]!.path, options.quickStart, problems]).toEqual([path, true, []]);
    }
    expect(serve('.', '--security-model', 'mapped').options.quickStart).toBe(false);
    expect(serve('.', '--export', '/a').options.quickStart).toBe(false);
  });

  it("parses what is shown of objects without a record, and QEMU's name of mapped", () => {
    const text =
      '/a,security_model=mapped-xattr,owner=1000:100,file_mode=0644,dir_mode=0755,records=override_stat';
    expect(serve('--export', text).options.exports[0]).toEqual({
      ...{ path: '/a', securityModel: 'mapped-xattr', owner: '1000:100' },
      ...{ fileMode: 0o644, dirMode: 0o755, records: 'override_stat' },
    });
    expect(problem('--export', '/a,records=override')).toContain('did you mean "override_stat"?');
    expect(problem('--export', '/a,file_mode=rw')).toContain('file_mode=0644');
  });

  it("takes libvirt's words for the models", () => {
    const model = (settings: string) => serve('--export', `/a,${settings}`).options.exports[0]!.securityModel;
    expect(['passthrough', 'mapped', 'squash'].map(word => model(`accessmode=${word}`))).toEqual([
      ...['passthrough', 'mapped', 'none'],
    ]);
    expect(model('accessmode=squash,security_model=none')).toBe('none');
    expect(problem('--export', '/a,accessmode=squash,security_model=mapped')).toContain(
      'accessmode=squash is security_model=none, but security_model=mapped is given too',
    );
    expect(problem('--export', '/a,accessmode=squach')).toContain('did you mean "squash"?');
  });

  it('names the word that was meant', () => {
    expect(problem('--export', '/a,securitymodel=mapped')).toContain('did you mean "security_model"?');
    expect(problem('--export', '/a,security_model=passtrough')).toContain('did you mean "passthrough"?');
    expect(problem('--export', '/a,squash=rot')).toContain('did you mean "root"?');
    expect(problem('--lisen', 'tcp://127.0.0.1:0')).toContain('did you mean "--listen"?');
    expect(problem('--log-level', 'wran')).toContain('did you mean "warn"?');
    expect(problem('--limit', 'conections=5')).toContain('did you mean "connections"?');
    expect(problem('serv')).toContain('did you mean "serve"?');
  });

  it('parses the allow rules of an export', () => {
    const text = '/a,allow=cid:5,privport=on,allow=uid:1000,allow=tcp:fd00::/8';
    expect(serve('--export', text).options.exports[0]).toMatchObject({
      allow: ['cid:5', 'uid:1000', 'tcp:fd00::/8'],
      privport: true,
    });
    expect(problem('--export', '/a,privport=yes')).toContain('privport=on');
    expect(problem('--export', '/a,allow')).toContain('allow=cid:5');
  });

  it('parses limits by name, and lists the names', () => {
    const { options, problems } = serve('--limit', 'fids-per-session=100', '--limit=version-seconds=5');
    expect([options.limits, problems]).toEqual([{ fidsPerSession: 100, versionSeconds: 5 }, []]);
    expect(problem('--limit', 'fids=100')).toContain('fids-per-session, fids-per-export');
    expect(problem('--limit', 'connections=many')).toContain('a whole number');
    expect(problem('--limit', 'connections=0')).toContain('a whole number');
    expect(problem('--limit', 'connections')).toContain('a whole number');
    expect(problem('--limit', 'connections=1', '--limit', 'connections=2')).toContain('twice');
  });

  it('reads doubled commas as literal ones', () => {
    expect(splitAtCommas('/a,,b,name=x,,,,y')).toEqual(['/a,b', 'name=x,,y']);
    expect(serve('--export', '/a,,b,name=c').options.exports[0]).toMatchObject({ path: '/a,b', name: 'c' });
  });

  it('reads modes in C notation and keeps the permission bits', () => {
    expect(['0600', '384', '0x180', '0'].map(numberAsInC)).toEqual([384, 384, 384, 0]);
    expect(['0888', 'rw', '', '-1', '6e2'].map(numberAsInC)).toEqual(Array(5).fill(undefined));
    expect(serve('--export', '/a,fmode=0104755').options.exports[0]!.fmode).toBe(0o755);
  });

  it('refuses octal modes without their 0, which would be other modes', () => {
    expect(problem('--export', '/a,fmode=999')).toContain(
      'fmode=999 is decimal, 01747 in octal, and no mode: write fmode=0600',
    );
    expect(problem('--export', '/a,dmode=755')).toContain('write dmode=0755');
    expect(problem('--export', '/a,dmode=7777')).toContain('write dmode=07777');
    expect(serve('--export', '/a,fmode=420').options.exports[0]!.fmode).toBe(0o644);
    expect(serve('--export', '/a,fmode=33188').options.exports[0]!.fmode).toBe(0o644);
  });

  it("reads an export in the words of QEMU's -fsdev and -virtfs", () => {
    const read = (text: string) => serve('--export', text).options.exports[0];
    expect(read('local,path=/srv,security_model=mapped-xattr,id=fs0,readonly,multidevs=remap')).toEqual({
      ...{ path: '/srv', securityModel: 'mapped-xattr', readonly: true, multidevs: 'remap' },
    });
    expect(read('local,id=a,security_model=none,path=/a,,b,mount_tag=share,fmode=0640')).toEqual({
      ...{ path: '/a,b', name: 'share', securityModel: 'none', fmode: 0o640 },
    });
    expect(read('local,path=/a,mount_tag=share,name=files')).toEqual({
      ...{ path: '/a', name: 'files', securityModel: 'mapped' },
    });
    // A directory of that name.
    expect(read('local,name=x')).toMatchObject({ path: 'local', name: 'x' });
    expect(problem('--export', 'local,path=/a,writeout=immediate')).toContain('unknown key "writeout"');
    expect(problem('--export', 'local,path=/a,path=/b')).toContain('unknown key "path"');
    expect(problem('--export', 'local,path=')).toContain('the path is missing');
  });

  it('reads ro and rw as mount(8) does', () => {
    const readonly = (text: string) => serve('--export', text).options.exports[0]!.readonly;
    expect([readonly('/a,ro'), readonly('/a,name=x,rw'), readonly('/a')]).toEqual([true, false, undefined]);
    expect(problem('--export', '/a,ro,readonly=off')).toContain('"readonly" is given twice');
  });

  it('reports all problems at once', () => {
    const { problems } = serve(
      ...['serve', 'a', 'b', '--nonsense', 'value', '--listen', 'tcp://nowhere', '--listen', 'rdma://3:564'],
      ...['--export', '/a,security_model=maped', '--export', '/b,readonly=maybe,colour=red'],
      ...['--msize-max', '100', '--log-level', 'loud', '--log-level', 'info'],
    );
    const about = [
      'b',
      '--nonsense',
      'nowhere',
      'vsock',
      'did you mean "mapped"?',
      'maybe',
      'colour',
      '100',
      'loud',
      '--log-level',
    ];
    for (const word of about) expect(problems.join('\n')).toContain(word);
    expect(problems).toHaveLength(10);
  });

  it('reports for each invalid value what is possible instead', () => {
    expect(problem('--security-model', 'non')).toContain('(did you mean "none"?): use one of mapped,');
    expect(problem('--log-level', 'loud')).toContain('trace, debug, info, warn, error, fatal');
    expect(problem('--msize-max', '1k')).toContain('4096');
    expect(problem('--msize-max', '1T')).toContain('such as 1M');
    expect(problem('--workers', '0')).toContain('1 to 256');
    expect(problem('--port', 'http')).toContain('--port 5640');
    expect(problem('--port', '65536')).toContain('highest is 65535');
    expect(problem('serve', '')).toContain('serve .');
    expect(problem('--export', '/a,readonly')).toContain('readonly=on');
    expect(problem('--export', '/a,dmode=99999999')).toContain('no mode');
    expect(problem('--listen', 'fd://4294967296')).toContain('highest');
    expect(problem('--export', '/a,fmode=rw')).toContain('fmode=0600');
    expect(problem('--export', '/a,name=x,name=y')).toContain('twice');
    expect(problem('--export', 'name=x,/a')).toContain('the path comes first');
    expect(problem('--export', '/a,freezable=yes')).toContain('freezable=on');
    expect(problem('--export', '/a,multidevs=warn')).toContain('multidevs=remap or multidevs=forbid');
    expect(problem('--listen')).toContain('needs a value');
    expect(problem('--listen', '--export')).toContain('needs a value');
    expect(problem('files')).toContain('./files');
  });
});

describe('what is plain although it is not the usual form', () => {
  it('is a port, or a host and port, without a scheme', () => {
    const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });
    expect(serve('--port', '564').options.listen).toEqual([tcp('127.0.0.1', 564)]);
    expect(serve('--listen', '564').options.listen).toEqual([tcp('127.0.0.1', 564)]);
    expect(serve('--listen', '10.0.0.1:564').options.listen).toEqual([tcp('10.0.0.1', 564)]);
    expect(serve('--listen', 'host.lan:564').options.listen).toEqual([tcp('host.lan', 564)]);
    expect(serve('--listen', '[::1]:564?busy-poll=5').options.listen).toEqual([]);
    expect(serve('--listen', '[::1]:564').options.listen).toEqual([tcp('::1', 564)]);
    for (const wrong of ['65536', ':564', 'tcp:564', 'vsock:564', '::1:564', '/run/x.sock', 'host', ''])
      expect(serve(`--listen=${wrong}`).problems).toHaveLength(1);
  });

  it('is a size with a suffix, a number of processes, and -v', () => {
    expect(serve('--msize-max', '64k').options.msizeMax).toBe(65536);
    expect(serve('--msize-max', '1MiB').options.msizeMax).toBe(1 << 20);
    const limits = ['--limit', 'bytes-per-session=16M', '--limit', 'fids-per-session=1k'];
    expect(serve(...limits).options.limits).toEqual({ bytesPerSession: 16 << 20, fidsPerSession: 1024 });
    expect(serve('--workers', 'auto').options.workers).toBe(availableParallelism());
    expect(parseCommandLine(['-v']).command).toBe('version');
  });

  it('is asked about when a word is like a known one', () => {
    expect(problem('--exprot', '/a')).toContain('(did you mean "--export"?)');
    expect(problem('--worker', '2')).toContain('(did you mean "--workers"?)');
    expect(problem('sevre')).toContain('(did you mean "serve"?)');
    expect(problem('--log-level', 'warning')).toContain('(did you mean "warn"?)');
    expect(problem('--export', '/a,read_only=on')).toContain('(did you mean "readonly"?)');
    expect(problem('--limit', 'fid-per-session=1')).toContain('(did you mean "fids-per-session"?)');
    expect(problem('--listen', 'vhostuser:///run/a?tag=b')).toContain('(did you mean "vhost-user"?)');
    expect(problem('-x')).not.toContain('did you mean');
  });
});

describe('a URI to listen on', () => {
  it('is a host and port, a socket path, or an inherited descriptor', () => {
    expect(endpointOf('tcp://127.0.0.1:0')).toEqual({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    expect(endpointOf('tcp://[::1]:5640')).toEqual({ kind: 'tcp', host: '::1', port: 5640 });
    expect(endpointOf('tcp://localhost:5640')).toEqual({ kind: 'tcp', host: 'localhost', port: 5640 });
    expect(endpointOf('unix:///run/a b.sock')).toEqual({ kind: 'unix', path: '/run/a b.sock' });
    expect(endpointOf('unix:///run/s?group=kvm')).toEqual({ kind: 'unix', path: '/run/s', group: 'kvm' });
    expect(endpointOf('tcp://[::1]:1?busy-poll=50')).toEqual({
      kind: 'tcp',
      host: '::1',
      port: 1,
      busyPoll: 50,
    });
    expect(endpointOf('vsock://any:1?busy-poll=0')).toEqual({ kind: 'vsock', cid: 0xffffffff, port: 1 });
    for (const uri of ['unix:///run/s?busy-poll=50&group=kvm', 'vsock://2:1?busy-poll=50', 'tcp://h:1'])
      expect(uriOf(endpointOf(uri) as Endpoint)).toBe(uri);
    expect(endpointOf('fd://3')).toEqual({ kind: 'fd', fd: 3 });
    expect(endpointOf('fd://guests')).toEqual({ kind: 'named-fd', name: 'guests' });
  });

  it('is otherwise refused with a hint', () => {
    const wrong = {
      'tcp://127.0.0.1': 'host and port',
      'tcp://:5640': '0.0.0.0',
      'tcp://::1:5640': '[::1]',
      'tcp://h:65536': '65535',
      'unix://run/x': 'three slashes',
      'unix:///run/': 'a file',
      'tcp://h:1?group=kvm': '"group" is no parameter',
      'tcp://h:1?busy-poll=soon': 'number of microseconds up to 10000',
      'unix:///run/s?mode=0666': '"mode" is no parameter',
      'unix:///run/s?group=': 'name or number',
      'unix:///run/s?group=a&group=b': 'given twice',
      [`unix:///${'x'.repeat(120)}`]: 'shorter',
      'fd://0': '3 or above',
      '127.0.0.1': 'tcp://HOST:PORT',
      'udp://127.0.0.1:5640': 'tcp://HOST:PORT',
    };
    for (const [uri, words] of Object.entries(wrong)) expect(endpointOf(uri), uri).toContain(words);
  });
});

describe('the hint how to mount', () => {
  it('contains the address by which a guest reaches this host', () => {
    const local = mountHint('tcp://127.0.0.1:5640', { name: 'files' }, 4 * 1024 * 1024);
    const options = 'trans=tcp,port=5640,version=9p2000.L,msize=1048576,aname=files,access=client';
    expect(local).toContain(`mount -t 9p -o ${options} 10.0.2.2 /mnt`);
    expect(mountHint('tcp://192.168.1.7:99', { name: 'files' }, 65536)).toContain(
      'msize=65536,aname=files,access=client 192.168.1.7 /mnt',
    );
    expect(mountHint('unix:///run/n.sock', { name: 'my files' }, 65536)).toMatch(
      /-o 'trans=unix,.*aname=my files,.*' \/run\/n.sock/,
    );
  });

  it('is left out where the Linux client cannot connect', () => {
    expect(mountHint('tcp://[fd00::1]:5640', { name: 'files' }, 65536)).toBeUndefined();
    expect(mountHint('fd://3', { name: 'files' }, 65536)).toBeUndefined();
  });
});
