import { readFileSync } from 'node:fs';
import { msizeBytesDefault } from '#quota/limits.ts';
import { type ModelEntry, models } from '#security/models.ts';

/** The version in package.json, for src and dist alike. */
export function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** The lines of a model, in the columns of `help`. */
function modelHelp({ name, summary }: ModelEntry): string {
  return summary.map((line, i) => `${(i === 0 ? `      ${name}` : '').padEnd(35)}${line}\n`).join('');
}

export const help = `ninepd serves directories of this machine to virtual machines, over 9P2000.L.
A Linux guest mounts them with the 9p file system that its kernel already has.

Usage:
  ninepd [serve] [options]         serve ./share, which is created if it is missing
  ninepd [serve] DIR [options]     serve DIR; without serve, a DIR with a slash or a first dot, as ./project
  ninepd help | version

Exports:
  --export PATH[,name=NAME][,security_model=MODEL][,readonly=on][,allow=WHO][,KEY=VALUE]…
                                   a directory; may be repeated. DIR, if given, is the first export. A guest
                                   that gives no aname gets the first.
      name=NAME                    its aname; default: its path
      security_model=MODEL         one of those below
      readonly=on                  guests cannot change anything
      allow=WHO                    only these peers may attach: cid:NUMBER (a virtual machine, by its vsock),
                                   uid:NUMBER or gid:NUMBER (the peer of a Unix socket),
                                   tcp:ADDRESS[/PREFIX]; may be repeated
      privport=on                  only from ports below 1024, which a guest's users cannot bind
      squash=root|all              passthrough only: the guest's root, or every user, acts as nobody, or as
                                   anonuid=UID and anongid=GID
      map=GUEST:HOST:COUNT         passthrough only: maps a range of the guest's user and group ids to the
                                   host's; with u: or g: before it, of one kind only; may be repeated
      check=guest|host             passthrough only: who checks permissions, by whose knowledge of groups:
                                   the guest's kernel (the default; with map= over its own ids), or the
                                   host's (the default with squash=)
      freezable=on                 its file systems are frozen now and then (fsfreeze); a change then delays
                                   only its own request, at the price of speed
      hostlocks=off                readonly=on only: guests' locks do not keep programs of this machine out
      multidevs=remap|forbid       what is mounted below the directory is served (the default), or refused
      fmode=MODE, dmode=MODE       mapped only: permission bits of files and directories on this machine
      owner=UID:GID                the owner that guests see: with none of everything, with mapped of what has
                                   no record; owner=caller, with none: each user sees itself
      chown=refuse                 none only: a change of owner fails instead of having no effect
      file_mode=MODE, dir_mode=MODE
                                   mapped only: the permission bits that guests see of what has no record
      records=override_stat        mapped only: reads the records of Podman and libkrun too
                                   A comma in a path or name is written twice.
  --export PATH.mjs[,source=SOURCE][,KEY=VALUE]…
                                   a module that makes a tree of its own, of SOURCE: docs/backends.md
  --security-model MODEL           for DIR and exports without one; default: mapped, but none for a user who
                                   is not root and gives no --export
${models.map(modelHelp).join('')}
Listeners:
  --listen URI                     may be repeated; default: tcp://127.0.0.1:5640
      tcp://HOST:PORT              tcp://[::1]:5640 for IPv6; for port 0 the kernel chooses one
                                   without tcp://: HOST:PORT, or PORT of 127.0.0.1
      unix:///PATH[?group=GROUP]   a Unix socket, for this user only (mode 0600), or for a group too
      vsock://CID:PORT             AF_VSOCK; CID is any, or one of this machine's; default port: 564.
                                   Firecracker's and other hybrid vsocks are unix:///PATH_PORT
      vhost-user:///PATH?tag=TAG[&export=NAME][&group=GROUP]
                                   the guest's virtio-9p device, for a monitor that connects to this socket;
                                   export= is the only export that the guest can attach
      …?busy-poll=US               all of the above: microseconds after a request to poll for the next one
                                   before sleeping
      fd://NUMBER, fd://NAME       an inherited socket
                                   Without --listen, sockets passed by systemd are used.

  --port PORT                      short for --listen tcp://127.0.0.1:PORT
  --insecure-loopback              passthrough listens where every user of this machine can connect, each of
                                   whom is root there: TCP, without allow= and privport=on

Sandbox:
  --sandbox on|off                 default: on: once started, the server can access its exports and nothing
                                   else. off leaves it all permissions of its user.
  --user NAME                      root becomes this user before it opens the exports; not with passthrough
  --trusted-xattrs on|off          passthrough keeps CAP_SYS_ADMIN, which trusted.* attributes need;
                                   default: off

Other:
  --msize-max BYTES                largest msize to agree to, such as 512k or 4M; default: ${msizeBytesDefault}
  --isolation guest|none           guest: a process for each guest, with its exports only; default: none: one
                                   process for all, or those of --workers
  --workers N                      number of processes that share the connections, or auto: one for each
                                   processor; default: 1
  --limit NAME=VALUE               a limit on what guests hold; may be repeated. Names: docs/limits.md
  --log-level LEVEL                trace, debug, info, warn, error or fatal; default: info
  -h, --help    -v, --version

Ctrl-C or SIGTERM stops it after running requests are answered.
Exit status: 0 stopped on request, 1 stopped with unanswered requests or by an error, 2 could not start.
`;
