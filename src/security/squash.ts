import type { Attr } from '#base/attr.ts';
import { EACCES, EINVAL, ENODATA, EOPNOTSUPP, EOVERFLOW } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import type { Credentials } from '#host/syscalls.ts';
import { mapAcl } from './acl-ids.ts';
import { IdMap, idMax, mapProblems } from './id-map.ts';
import type { GuestForm, HostForm, SecurityModel, Target } from './model.ts';
import { nobody, noUser } from './nobody.ts';

/** As whom a guest's users act on the host, and how the host's ids look to them. */
export interface IdOptions {
  /**
   * `root`: the guest's root acts as the anonymous user, and its group 0 as the anonymous group; `all`: everybody does. `none`
   * when left out.
   */
  readonly squash?: 'none' | 'root' | 'all';
  /** The anonymous user and group on the host; 65534 when left out. */
  readonly anonuid?: number;
  readonly anongid?: number;
  /** Ranges `GUEST:HOST:COUNT` of users and groups, or with `u:` or `g:` before it of one kind. None are all ids as they are. */
  readonly map?: readonly string[];
}

const acls = new Set(['system.posix_acl_access', 'system.posix_acl_default']);
const capability = 'security.capability';
/** vfs_ns_cap_data of linux/capability.h: file capabilities that are good for one root user, whose uid is in them. */
const capabilityWithRootBytes = 24;

/** A user of the guest, in the guest's ids, and as whom it acts on the host. */
interface GuestCaller extends Credentials {
  readonly host: Credentials;
}

const hostOf = (creds: Credentials): Credentials => (creds as Partial<GuestCaller>).host ?? creds;

/** What is wrong with these: each fault with what to do. `meant` is whether the model acts as the guest's users at all. */
export function idProblems(options: IdOptions, meant: boolean): string[] {
  const { squash = 'none', anonuid, anongid, map = [] } = options;
  const problems: string[] = [];
  if (!meant && (squash !== 'none' || anonuid !== undefined || anongid !== undefined || map.length > 0)) {
    problems.push(
      "squash, anonuid, anongid and map are for security_model=passthrough: with mapped a guest's users are nobody on the host, so leave them out",
    );
  }
  if (!['none', 'root', 'all'].includes(squash))
    problems.push(`squash=${squash} is not possible: say squash=root, all or none`);
  if (meant && squash === 'none' && (anonuid ?? anongid) !== undefined) {
    problems.push(
      'anonuid and anongid are whom squash=root or squash=all make of others: say which, or leave them out',
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
  return [...problems, ...mapProblems(map)];
}

/**
 * A security model with ids of the guest on one side and those of the host on the other: what comes from the guest is made
 * into the host's, or refused, and what goes to it is made into the guest's, or shown as nobody's. The model within knows the
 * host's alone. As with idmapped mounts and user namespaces of Linux, an id without a counterpart cannot be given to anything
 * (EINVAL), nothing can be made with it (EOVERFLOW), and whoever has it may not attach (EACCES).
 *
 * Of a user's groups on the host those within the ranges count: a guest acts with no other id, save nobody's and the anonymous.
 */
export function withIds(model: SecurityModel, options: IdOptions): SecurityModel {
  const { squash = 'none', map = [] } = options;
  return squash === 'none' && map.length === 0 ? model : new Ids(model, options);
}

class Ids implements SecurityModel {
  readonly name: string;
  readonly reservedPrefix: Bytes;
  readonly typeXattr: Bytes;
  readonly overlaysAttrs: boolean;
  readonly #model: SecurityModel;
  readonly #squash: 'none' | 'root' | 'all';
  readonly #anonymous: GuestCaller;
  readonly #uids: IdMap;
  readonly #gids: IdMap;
  readonly #mapped: boolean;

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
    this.overlaysAttrs = model.overlaysAttrs || this.#mapped;
  }

  #guest(host: Credentials): GuestCaller {
    const uid = this.#uids.toGuest(host.uid) ?? nobody;
    return { uid, gid: this.#gids.toGuest(host.gid) ?? nobody, groups: [], host };
  }

  credsOfUser(uid: number): MaybePromise<Credentials> {
    if (this.#squash === 'all' || (this.#squash === 'root' && (uid === 0 || uid === noUser)))
      return this.#anonymous;
    if (uid === noUser) return andThen(this.#model.credsOfUser(uid), host => this.#guest(host));
    const hostUid = this.#uids.toHost(uid);
    if (hostUid === undefined) throw EACCES;
    return andThen(this.#model.credsOfUser(hostUid), known => {
      const groups = known.groups.filter(gid => this.#mayAct(gid));
      const own = uid === 0 ? this.#gids.toHost(0) : known.gid;
      const gid = own !== undefined && this.#mayAct(own) ? own : nobody;
      return this.#guest({ uid: known.uid, gid, groups });
    });
  }

  /** Whether a group of the host is one that the guest has. */
  #mayAct(gid: number): boolean {
    const guest = this.#gids.toGuest(gid);
    return guest !== undefined && !(guest === 0 && this.#squash === 'root');
  }

  credsFor(creds: Credentials): Credentials {
    return this.#model.credsFor(hostOf(creds));
  }

  credsForCreate(creds: Credentials, gid: number): Credentials {
    return this.#model.credsForCreate(hostOf(creds), this.#groupOfNew(creds, gid));
  }

  #groupOfNew(creds: Credentials, gid: number): number {
    const anonymous = this.#anonymous.host.gid;
    if (this.#squash === 'all' || (this.#squash === 'root' && gid === 0)) return anonymous;
    // Its own group, which may be one that the guest knows only as nobody's.
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
    // Who made it in place is the host's user already, with the right group.
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
      ...(uid !== undefined && { uid: given(this.#uids, uid) }),
      ...(gid !== undefined && { gid: given(this.#gids, gid) }),
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
    if (this.#isUntold(name)) throw EOPNOTSUPP;
    return this.#model.xattrToHost(name, hostOf(creds), use, type);
  }

  xattrToClient(name: Bytes, creds: Credentials): Bytes | undefined {
    const shown = this.#model.xattrToClient(name, hostOf(creds));
    return shown !== undefined && this.#isUntold(shown) ? undefined : shown;
  }

  /** Of `system.` some have ids in forms of their own (system.nfs4_acl), which would come through unchanged. */
  #isUntold(name: Bytes): boolean {
    return this.#mapped && name.startsWith('system.') && !acls.has(name);
  }

  valueToHost(name: Bytes, value: Uint8Array): Uint8Array {
    if (!this.#mapped) return value;
    if (name === capability && value.length === capabilityWithRootBytes) throw EINVAL;
    return acls.has(name)
      ? mapAcl(
          value,
          id => given(this.#uids, id),
          id => given(this.#gids, id),
        )
      : value;
  }

  valueToClient(name: Bytes, value: Uint8Array): Uint8Array {
    if (!this.#mapped) return value;
    // Whose root they are good for, the host's or another, is no user of the guest.
    const ofAnother = value.length === capabilityWithRootBytes || this.#uids.toGuest(0) !== 0;
    if (name === capability && ofAnother) throw ENODATA;
    if (!acls.has(name)) return value;
    return mapAcl(
      value,
      id => this.#uids.toGuest(id) ?? nobody,
      id => this.#gids.toGuest(id) ?? nobody,
    );
  }
}

/** The host's id for one that the guest gives to something. */
function given(map: IdMap, id: number): number {
  const host = map.toHost(id);
  if (host === undefined) throw EINVAL;
  return host;
}
