/** Fewer take no more memory than what would have to be remembered of them. */
const sharedMin = 64;

/**
 * Gives all callers of one user the same array of groups, so that a user in many groups takes their memory once, however often
 * guests attach as that user. What no caller has any more is forgotten.
 */
export class SharedGroups {
  readonly #byUid = new Map<number, WeakRef<readonly number[]>>();
  readonly #forgotten = new FinalizationRegistry<number>(uid => {
    if (this.#byUid.get(uid)?.deref() === undefined) this.#byUid.delete(uid);
  });

  /** An array with these groups. */
  of(uid: number, groups: readonly number[]): readonly number[] {
    if (groups.length <= sharedMin) return groups;
    const known = this.#byUid.get(uid)?.deref();
    if (known && known.length === groups.length && known.every((gid, i) => gid === groups[i])) return known;
    this.#byUid.set(uid, new WeakRef(groups));
    this.#forgotten.register(groups, uid);
    return groups;
  }
}
