import { type Answer, andThen } from '../answer.ts';
import type { Attr } from '../attr.ts';
import { EACCES, EINVAL, ENODATA, EOPNOTSUPP, EOVERFLOW } from '../errno.ts';
import type { Caller } from '../host/syscalls.ts';
import type { Bytes } from '../name.ts';
import { mapAcl } from './acl-ids.ts';
import { IdMap, idMax, mapFaults } from './id-map.ts';
import type { SecurityModel, Shape, Target, Want } from './model.ts';
import { nobody, noUser } from './nobody.ts';
import { SharedGroups } from './shared-groups.ts';

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
interface GuestCaller extends Caller {
  readonly host: Caller;
}

const hostOf = (caller: Caller): Caller => (caller as Partial<GuestCaller>).host ?? caller;

/** What is wrong with these: each fault with what to do. `meant` is whether the model acts as the guest's users at all. */
export function idFaults(options: IdOptions, meant: boolean): string[] {
  const { squash = 'none', anonuid, anongid, map = [] } = options;
  const faults: string[] = [];
  if (!meant && (squash !== 'none' || anonuid !== undefined || anongid !== undefined || map.length > 0)) {
    faults.push(
      "squash, anonuid, anongid and map are for security_model=passthrough: with mapped a guest's users are nobody on the host, so leave them out",
    );
  }
  if (!['none', 'root', 'all'].includes(squash))
    faults.push(`squash=${squash} is not possible: say squash=root, all or none`);
  if (meant && squash === 'none' && (anonuid ?? anongid) !== undefined) {
    faults.push(
      'anonuid and anongid are whom squash=root or squash=all make of others: say which, or leave them out',
    );
  }
  for (const [key, id] of [
    ['anonuid', anonuid],
    ['anongid', anongid],
  ] as const) {
    if (id !== undefined && !(Number.isSafeInteger(id) && id >= 0 && id <= idMax)) {
      faults.push(`${key}=${id} is no id: write a number, as in ${key}=65534`);
    }
  }
  return [...faults, ...mapFaults(map)];
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
  readonly ownPrefix: Bytes;
  readonly typeXattr: Bytes;
  readonly overlays: boolean;
  readonly #model: SecurityModel;
  readonly #squash: 'none' | 'root' | 'all';
  readonly #anonymous: GuestCaller;
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
    this.ownPrefix = model.ownPrefix;
    this.typeXattr = model.typeXattr;
    this.overlays = model.overlays || this.#mapped;
  }

  #guest(host: Caller): GuestCaller {
    const uid = this.#uids.toGuest(host.uid) ?? nobody;
    return { uid, gid: this.#gids.toGuest(host.gid) ?? nobody, groups: [], host };
  }

  user(uid: number): Answer<Caller> {
    if (this.#squash === 'all' || (this.#squash === 'root' && (uid === 0 || uid === noUser)))
      return this.#anonymous;
    if (uid === noUser) return andThen(this.#model.user(uid), host => this.#guest(host));
    const hostUid = this.#uids.toHost(uid);
    if (hostUid === undefined) throw EACCES;
    return andThen(this.#model.user(hostUid), known => {
      const groups = this.#groups.of(
        known.uid,
        known.groups.filter(gid => this.#mayAct(gid)),
      );
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

  runsAs(caller: Caller): Caller {
    return this.#model.runsAs(hostOf(caller));
  }

  makesAs(caller: Caller, gid: number): Caller {
    return this.#model.makesAs(hostOf(caller), this.#groupOfNew(caller, gid));
  }

  #groupOfNew(caller: Caller, gid: number): number {
    const anonymous = this.#anonymous.host.gid;
    if (this.#squash === 'all' || (this.#squash === 'root' && gid === 0)) return anonymous;
    // Its own group, which may be one that the guest knows only as nobody's.
    if (gid === caller.gid) return hostOf(caller).gid;
    const host = this.#gids.toHost(gid);
    if (host === undefined) throw EOVERFLOW;
    return host;
  }

  shape(want: Want): Shape {
    return this.#model.shape(want);
  }

  stamp(target: Target, caller: Caller, want: Want): Answer<void> {
    const host = hostOf(caller);
    // Who made it in place is the host's user already, with the right group.
    const gid = host === caller ? host.gid : this.#groupOfNew(caller, want.gid);
    return this.#model.stamp(target, host, { ...want, uid: host.uid, gid });
  }

  view(target: Target, attr: Attr): Answer<void> {
    return andThen(this.#model.view(target, attr), () => {
      attr.uid = this.#uids.toGuest(attr.uid) ?? nobody;
      attr.gid = this.#gids.toGuest(attr.gid) ?? nobody;
    });
  }

  change(
    target: Target,
    caller: Caller,
    { uid, gid, mode }: { readonly uid?: number; readonly gid?: number; readonly mode?: number },
  ): Answer<void> {
    return this.#model.change(target, hostOf(caller), {
      ...(uid !== undefined && { uid: given(this.#uids, uid) }),
      ...(gid !== undefined && { gid: given(this.#gids, gid) }),
      ...(mode !== undefined && { mode }),
    });
  }

  readlink(target: Target, caller: Caller): Answer<Bytes> {
    return this.#model.readlink(target, hostOf(caller));
  }

  writing(target: Target, caller: Caller): Answer<void> {
    return this.#model.writing(target, hostOf(caller));
  }

  xattrToHost(name: Bytes, caller: Caller, use: 'get' | 'set', type: number): Bytes {
    if (this.#isUntold(name)) throw EOPNOTSUPP;
    return this.#model.xattrToHost(name, hostOf(caller), use, type);
  }

  xattrToClient(name: Bytes, caller: Caller): Bytes | undefined {
    const shown = this.#model.xattrToClient(name, hostOf(caller));
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
