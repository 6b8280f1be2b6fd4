import type { Attr } from '#base/attr.ts';
import { EACCES, EINVAL, ENODATA, EOPNOTSUPP, EOVERFLOW } from '#base/errno.ts';
import { nobody, noId } from '#base/ids.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import type { Credentials, OwnerRanges, Submitter } from '#host/syscalls.ts';
import { aclXattrs, mapAcl } from './acl-ids.ts';
import { IdMap, idMax, mapProblems } from './id-map.ts';
import type { GuestForm, HostForm, SecurityModel, Target } from './model.ts';
import { type Check, givesGroup } from './passthrough.ts';
import { SharedGroups } from './shared-groups.ts';

/** Which ids a guest's users have on the host, and which ids of the host they see. */
export interface IdOptions {
  /**
   * `root`: the guest's root acts as the anonymous user, and its group 0 as the anonymous group. `all`: every user does. Default:
   * `none`.
   */
  readonly squash?: 'none' | 'root' | 'all';
  /** The anonymous user and group on the host. Default: 65534. */
  readonly anonuid?: number;
  readonly anongid?: number;
  /**
   * Ranges `GUEST:HOST:COUNT` of users and groups; `u:` or `g:` before it limits one to a kind. Without ranges ids are
   * unchanged.
   */
  readonly map?: readonly string[];
  /**
   * Who decides what a guest's users may do. `guest`: the guest's kernel, with `map` over objects whose owner and group are
   * mapped, and the host's over all others. `host`: the host's kernel. Default: `guest`, with `squash` `host`.
   */
  readonly check?: Check;
}

export function checkOf({ check, squash = 'none' }: IdOptions): Check {
  return check ?? (squash === 'none' ? 'guest' : 'host');
}

/** The objects over which the guest's kernel judges with `check: 'guest'`. */
export function guestsObjects({ map = [] }: IdOptions): 'all' | OwnerRanges {
  if (map.length === 0) return 'all';
  return { uids: IdMap.of(map, 'u').hostRanges, gids: IdMap.of(map, 'g').hostRanges };
}

/** Whether users' groups are looked up in the host's user database. */
export function asksForGroups(options: IdOptions): boolean {
  return checkOf(options) === 'host' || guestsObjects(options) !== 'all';
}

/** Ranges of one kind in a call's credentials: RANGES_MAX of native-shims/call.h. */
const rangesMax = 32;

const capability = 'security.capability';
/** vfs_ns_cap_data of linux/capability.h: file capabilities of a user namespace, with the uid of its root. */
const capabilityWithRootBytes = 24;

/** A guest user's credentials, in the guest's ids, with those for host calls. */
interface GuestCredentials extends Credentials {
  readonly host: Credentials;
}

const hostOf = (creds: Credentials): Credentials => (creds as Partial<GuestCredentials>).host ?? creds;

/** Problems of the options, each with what to do. */
export function idProblems(options: IdOptions): string[] {
  const { squash = 'none', anonuid, anongid, map = [] } = options;
  const problems: string[] = [];
  if (!['none', 'root', 'all'].includes(squash))
    problems.push(`squash=${squash} is not possible: say squash=root, all or none`);
  if (squash === 'none' && (anonuid ?? anongid) !== undefined) {
    problems.push(
      'anonuid and anongid need squash=root or squash=all: give one of them, or leave anonuid and anongid out',
    );
  }
  for (const [key, id] of [
    ['anonuid', anonuid],
    ['anongid', anongid],
  ] as const) {
    if (id !== undefined && !(Number.isSafeInteger(id) && id >= 0 && id <= idMax)) {
      problems.push(`${key}=${id} is no id: write a number, as in ${key}=65534`);
    }
  }
  return [...problems, ...checkProblems(options), ...mapProblems(map)];
}

function checkProblems(options: IdOptions): string[] {
  const { check, squash = 'none', map = [] } = options;
  if (check !== undefined && check !== 'guest' && check !== 'host')
    return [`check=${check} is not possible: say check=guest or check=host`];
  if (check === 'guest' && squash !== 'none') {
    return [
      `check=guest trusts the guest's kernel to check its users, squash=${squash} does not: leave one of them out`,
    ];
  }
  const most = Math.max(...(['u', 'g'] as const).map(kind => IdMap.of(map, kind).hostRanges.length));
  if (checkOf(options) === 'host' || most <= rangesMax) return [];
  return [
    `map= has ${most} ranges of one kind, and check=guest takes ${rangesMax}: join some, or say check=host`,
  ];
}

/**
 * Wraps a security model, and maps ids: from the guest's to the host's or an error, from the host's to the guest's or nobody. The
 * wrapped model sees the host's ids only. As with idmapped mounts and user namespaces of Linux, an unmapped id cannot be set
 * (EINVAL), nothing can be created with it (EOVERFLOW), and a user who has it cannot attach (EACCES).
 *
 * A user's groups on the host are limited to mapped ones: a guest acts with no other id except nobody's and the anonymous.
 */
export function withIds(model: SecurityModel, options: IdOptions): SecurityModel {
  const { squash = 'none', map = [] } = options;
  return squash === 'none' && map.length === 0 ? model : new Ids(model, options);
}

class Ids implements SecurityModel {
  readonly name: string;
  readonly reservedPrefix: Bytes;
  readonly typeXattr: Bytes;
  readonly recordFiles: SecurityModel['recordFiles'];
  readonly overlaysAttrs: boolean;
  readonly #model: SecurityModel;
  readonly #squash: 'none' | 'root' | 'all';
  readonly #anonymous: GuestCredentials;
  readonly #uids: IdMap;
  readonly #gids: IdMap;
  readonly #mapped: boolean;
  readonly #groups = new SharedGroups();

  constructor(
    model: SecurityModel,
    { squash = 'none', anonuid = nobody, anongid = nobody, map = [] }: IdOptions,
  ) {
    this.#model = model;
    this.#squash = squash;
    this.#mapped = map.length > 0;
    this.#uids = IdMap.of(map, 'u');
    this.#gids = IdMap.of(map, 'g');
    this.#anonymous = this.#guest({ uid: anonuid, gid: anongid, groups: [] });
    this.name = model.name;
    this.reservedPrefix = model.reservedPrefix;
    this.typeXattr = model.typeXattr;
    this.recordFiles = model.recordFiles;
    this.overlaysAttrs = model.overlaysAttrs || this.#mapped;
  }

  #guest(host: Credentials): GuestCredentials {
    const uid = this.#uids.toGuest(host.uid) ?? nobody;
    return { uid, gid: this.#gids.toGuest(host.gid) ?? nobody, groups: [], host };
  }

  credsOfUser(uid: number, submitter: Submitter): MaybePromise<Credentials> {
    if (this.#squash === 'all' || (this.#squash === 'root' && (uid === 0 || uid === noId)))
      return this.#anonymous;
    if (uid === noId) return andThen(this.#model.credsOfUser(uid, submitter), host => this.#guest(host));
    const hostUid = this.#uids.toHost(uid);
    if (hostUid === undefined) throw EACCES;
    return andThen(this.#model.credsOfUser(hostUid, submitter), known => {
      const groups = this.#groups.of(
        known.uid,
        known.groups.filter(gid => this.#mayAct(gid)),
      );
      const own = uid === 0 ? this.#gids.toHost(0) : known.gid;
      const gid = own !== undefined && this.#mayAct(own) ? own : nobody;
      return this.#guest({ ...known, gid, groups });
    });
  }

  /** Whether a group of the host is mapped, and not squashed. */
  #mayAct(gid: number): boolean {
    const guest = this.#gids.toGuest(gid);
    return guest !== undefined && !(guest === 0 && this.#squash === 'root');
  }

  credsFor(creds: Credentials): Credentials {
    return this.#model.credsFor(hostOf(creds));
  }

  credsForCreate(creds: Credentials, gid: number, dir: Target): MaybePromise<Credentials> {
    const host = hostOf(creds);
    const create = () => this.#model.credsForCreate(host, this.#groupOfNew(creds, gid), dir);
    const group = this.#squash === 'root' && gid === 0 ? this.#gids.toHost(0) : undefined;
    if (group === undefined || host.gid === this.#anonymous.host.gid) return create();
    // The group of a set-gid directory, which is not squashed.
    return andThen(givesGroup(dir, group), given =>
      given ? this.#model.credsForCreate(host, host.gid, dir) : create(),
    );
  }

  credsForAcl(target: Target, creds: Credentials): MaybePromise<Credentials> {
    const host = hostOf(creds);
    return this.#model.credsForAcl?.(target, host) ?? this.#model.credsFor(host);
  }

  #groupOfNew(creds: Credentials, gid: number): number {
    const anonymous = this.#anonymous.host.gid;
    if (this.#squash === 'all' || (this.#squash === 'root' && gid === 0)) return anonymous;
    // The user's own group, which may be unmapped and shown as nobody's.
    if (gid === creds.gid) return hostOf(creds).gid;
    const host = this.#gids.toHost(gid);
    if (host === undefined) throw EOVERFLOW;
    return host;
  }

  hostForm(want: GuestForm): HostForm {
    return this.#model.hostForm(want);
  }

  setInitialAttrs(target: Target, creds: Credentials, want: GuestForm): MaybePromise<void> {
    const host = hostOf(creds);
    // `creds` without `host` come from credsForCreate: they are the host's already, with the right group.
    const gid = host === creds ? host.gid : this.#groupOfNew(creds, want.gid);
    return this.#model.setInitialAttrs(target, host, { ...want, uid: host.uid, gid });
  }

  overlayAttrs(target: Target, attr: Attr): MaybePromise<void> {
    return andThen(this.#model.overlayAttrs(target, attr), () => {
      attr.uid = this.#uids.toGuest(attr.uid) ?? nobody;
      attr.gid = this.#gids.toGuest(attr.gid) ?? nobody;
    });
  }

  change(
    target: Target,
    creds: Credentials,
    { uid, gid, mode }: { readonly uid?: number; readonly gid?: number; readonly mode?: number },
  ): MaybePromise<void> {
    return this.#model.change(target, hostOf(creds), {
      ...(uid !== undefined && { uid: requireHostId(this.#uids, uid) }),
      ...(gid !== undefined && { gid: requireHostId(this.#gids, gid) }),
      ...(mode !== undefined && { mode }),
    });
  }

  readlink(target: Target, creds: Credentials): MaybePromise<Bytes> {
    return this.#model.readlink(target, hostOf(creds));
  }

  beforeWrite(target: Target, creds: Credentials): MaybePromise<void> {
    return this.#model.beforeWrite(target, hostOf(creds));
  }

  xattrToHost(name: Bytes, creds: Credentials, use: 'get' | 'set', type: number): Bytes {
    if (this.#isHidden(name)) throw EOPNOTSUPP;
    return this.#model.xattrToHost(name, hostOf(creds), use, type);
  }

  xattrToClient(name: Bytes, creds: Credentials): Bytes | undefined {
    const shown = this.#model.xattrToClient(name, hostOf(creds));
    return shown !== undefined && this.#isHidden(shown) ? undefined : shown;
  }

  xattrRefused(name: Bytes, creds: Credentials): void {
    this.#model.xattrRefused?.(name, hostOf(creds));
  }

  /** Other `system.` xattrs may contain ids that are not mapped (system.nfs4_acl). */
  #isHidden(name: Bytes): boolean {
    return this.#mapped && name.startsWith('system.') && !aclXattrs.has(name);
  }

  valueToHost(name: Bytes, value: Uint8Array): Uint8Array {
    if (!this.#mapped) return value;
    if (name === capability && value.length === capabilityWithRootBytes) throw EINVAL;
    return aclXattrs.has(name)
      ? mapAcl(
          value,
          id => requireHostId(this.#uids, id),
          id => requireHostId(this.#gids, id),
        )
      : value;
  }

  valueToClient(name: Bytes, value: Uint8Array): Uint8Array {
    if (!this.#mapped) return value;
    // They belong to a root that is not the guest's: the host's, or that of a user namespace.
    const otherRoot = value.length === capabilityWithRootBytes || this.#uids.toGuest(0) !== 0;
    if (name === capability && otherRoot) throw ENODATA;
    if (!aclXattrs.has(name)) return value;
    return mapAcl(
      value,
      id => this.#uids.toGuest(id) ?? nobody,
      id => this.#gids.toGuest(id) ?? nobody,
    );
  }
}

/** The host's id for one that the guest sets. Throws EINVAL if unmapped. */
function requireHostId(map: IdMap, id: number): number {
  const host = map.toHost(id);
  if (host === undefined) throw EINVAL;
  return host;
}
