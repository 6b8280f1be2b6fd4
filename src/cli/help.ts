import { readFileSync } from 'node:fs';
import { msizeBytesDefault } from '#quota/limits.ts';

/** The version of the package, whether it runs from sources or as built. */
export function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

export const help = `ninepd serves directories of this machine to virtual machines, over 9P2000.L.
A Linux guest mounts them with the 9p file system that its kernel already has.

Usage:
  ninepd [serve] [options]         serve ./share, which is made if it is missing
  ninepd serve DIR [options]       serve DIR
  ninepd help | version

What is served:
  --export PATH[,name=NAME][,security_model=MODEL][,readonly=on][,allow=WHO][,KEY=VALUE]…
                                   one more directory; may be repeated. DIR, when given, is the first
                                   export, and the first is what a guest gets that asks for none (aname).
      name=NAME                    what guests call it (aname=NAME); its path when left out
      security_model=MODEL         mapped or passthrough, see below
      readonly=on                  guests cannot change anything
      allow=WHO                    only these may attach: cid:NUMBER (a virtual machine, by its vsock),
                                   uid:NUMBER or gid:NUMBER (who connects to a Unix socket),
                                   tcp:ADDRESS[/PREFIX]; may be repeated
      privport=on                  only from ports below 1024, which a guest's users cannot have
      squash=root|all              passthrough only: the guest's root, or everybody, acts as nobody, or as
                                   anonuid=UID and anongid=GID
      map=GUEST:HOST:COUNT         passthrough only: a range of users and groups of the guest and what they
                                   are on this machine; u: or g: before it for one kind; may be repeated
      fmode=MODE, dmode=MODE       mapped only: permission bits of files and directories on this machine
                                   A comma in a path or name is written twice.
  --security-model MODEL           for DIR and for exports that name none; mapped when left out
      mapped                       files belong to the user that runs ninepd; owner, mode and type as
                                   guests see them are kept in extended attributes. Needs no privilege.
      passthrough                  files really belong to the guest's users and groups. Needs root.

Where it listens:
  --listen URI                     may be repeated; tcp://127.0.0.1:5640 when left out
      tcp://HOST:PORT              tcp://[::1]:5640 for IPv6; port 0 lets the system choose
      unix:///PATH[?group=GROUP]   a Unix socket, for this user only (mode 0600), or for a group too
      vsock://CID:PORT             AF_VSOCK; CID is any, or one of this machine's; port 564 when left out.
                                   Firecracker's and other hybrid vsocks are unix:///PATH_PORT
      vhost-user:///PATH?tag=TAG[&export=NAME][&group=GROUP]
                                   the guest's virtio-9p device itself, for a monitor at this socket;
                                   export= names the one export that the guest reaches
      …?busy-poll=US               any of these: for so many microseconds after a request the next one is
                                   looked for, instead of going to sleep
      fd://NUMBER, fd://NAME       a socket that the program was started with
                                   Without --listen, sockets that systemd passes are used.

Sandbox:
  --sandbox on|off                 on when left out: once started, the server reaches its exports and nothing
                                   else. off leaves it all that its user may do.
  --user NAME                      root becomes this user before it opens the exports; not with passthrough
  --trusted-xattrs on|off          passthrough keeps CAP_SYS_ADMIN, which trusted.* attributes need; off when
                                   left out

Further:
  --msize-max BYTES                largest message a guest may ask for (${msizeBytesDefault} when left out)
  --workers N                      N processes share the connections; 1 when left out
  --limit NAME=VALUE               what guests may hold at most; may be repeated. docs/limits.md has the names
  --log-level LEVEL                trace, debug, info, warn, error or fatal; info when left out
  -h, --help    --version

Stop it with Ctrl-C or SIGTERM: what runs is finished first.
Exit status: 0 stopped as asked, 1 stopped with requests unfinished or by a fault, 2 could not start.
`;
