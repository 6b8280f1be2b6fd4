import { type Volume, Volumes } from '#backend/local/volume.ts';
import type { Attr } from '#base/attr.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { InlineSyscalls, Submitter, Syscalls } from '#host/syscalls.ts';
import { FdBudget, type FdHolder } from '#quota/fd-budget.ts';
import type { PinnedFds } from '#quota/pinned-fds.ts';

/** A number of descriptors that is never reached. */
export const plenty = 1_000_000;

/**
 * A budget that is short: between any two requests, whatever can be had again is given up, however lately it was used. A
 * contended one does so whenever somebody needs a descriptor, too: in the middle of requests.
 */
export class ShortDescriptors extends FdBudget {
  readonly #held = new Set<FdHolder>();
  readonly #contended: boolean;

  constructor(contended: boolean) {
    super(plenty);
    this.#contended = contended;
  }

  override admit(holder: FdHolder): void {
    if (this.#contended) this.giveUpAll();
    super.admit(holder);
    this.#held.add(holder);
  }

  override pin(pins: PinnedFds): void {
    if (this.#contended) this.giveUpAll();
    super.pin(pins);
  }

  override leave(holder: FdHolder): void {
    super.leave(holder);
    this.#held.delete(holder);
  }

  giveUpAll(): void {
    for (const holder of this.#held) if (holder.giveUp('nothing')) this.leave(holder);
  }
}

/** Volumes that are changed as soon as they are found. */
abstract class ChangedVolumes extends Volumes {
  override discover(submitter: Submitter, fd: number, attr: Attr): MaybePromise<Volume> {
    return andThen(super.discover(submitter, fd, attr), volume => {
      this.change(volume);
      return volume;
    });
  }

  protected abstract change(volume: Volume): void;
}

/** Makes the calls of a volume. `sys` without the pool's threads: by `inline` only. */
function setAlways(volume: Volume, sys: Volume['sys'], inline: InlineSyscalls | undefined): void {
  // It changes them itself, too: while an fsync runs.
  const always = <T>(value: T) => ({ configurable: true, get: () => value, set: () => undefined });
  Object.defineProperties(volume, { sys: always(sys), sysForNew: always(sys), inline: always(inline) });
}

/** Of local file systems, all calls are made as while a disk keeps its callers waiting. */
export class StrainedVolumes extends ChangedVolumes {
  protected change(volume: Volume): void {
    if (volume.local) setAlways(volume, volume.pool, undefined);
  }
}

/** How many calls of a request are made at once, at most. */
const callsAtOnceMax = 6;

/**
 * Of local file systems, the first calls of each request are made at once, of one request none, of the next one and so on; then
 * it is seen that the disk keeps its callers waiting, until the next request.
 */
export class StrainingVolumes extends ChangedVolumes {
  readonly #changed: { readonly volume: Volume; readonly calm: Syscalls; readonly inline: InlineSyscalls }[] =
    [];
  #requests = 0;
  #left = 0;

  protected change(volume: Volume): void {
    const { inline } = volume;
    if (!inline) return;
    const calm = new Proxy<Syscalls>(inline, {
      get: (target, name) => this.#counted(target, name as keyof Syscalls),
    });
    this.#changed.push({ volume, calm, inline });
    setAlways(volume, () => calm, inline);
  }

  #counted(sys: Syscalls, name: keyof Syscalls): unknown {
    const call = sys[name].bind(sys) as (...args: unknown[]) => unknown;
    return (...args: unknown[]) => {
      try {
        return call(...args);
      } finally {
        if (this.#left-- <= 1) this.#strain();
      }
    };
  }

  #strain(): void {
    for (const { volume } of this.#changed) setAlways(volume, volume.pool, undefined);
  }

  beginRequest(): void {
    this.#left = this.#requests++ % (callsAtOnceMax + 1);
    for (const { volume, calm, inline } of this.#changed) setAlways(volume, () => calm, inline);
    if (this.#left === 0) this.#strain();
  }
}
