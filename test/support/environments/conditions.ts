import type { LocalNode } from '#backend/local/node.ts';
import { type Volume, Volumes } from '#backend/local/volume.ts';
import type { Attr } from '#base/attr.ts';
import type { InlineSyscalls, Submitter, Syscalls } from '#host/syscalls.ts';
import { FdBudget, type FdHolder } from '#quota/fd-budget.ts';
import type { PinnedFds } from '#quota/pinned-fds.ts';

/** More descriptors than tests use. */
export const plenty = 1_000_000;

/**
 * A budget that evicts every descriptor that can be reopened between any two requests, even recently used ones. A contended one
 * also evicts whenever a descriptor is needed, in the middle of requests.
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
    for (const holder of this.#held) if (holder.evict('nothing')) this.leave(holder);
  }
}

/** Volumes that are modified when they are first seen. */
abstract class ChangedVolumes extends Volumes<LocalNode> {
  override async discover(submitter: Submitter, fd: number, attr: Attr): Promise<Volume<LocalNode>> {
    const volume = await super.discover(submitter, fd, attr);
    this.change(volume);
    return volume;
  }

  protected abstract change(volume: Volume): void;
}

/** Makes the calls of a volume. `sys` without the pool's threads: by `inline` only. */
function setAlways(volume: Volume, sys: Volume['sys'], inline: InlineSyscalls | undefined): void {
  // The volume also changes them itself, while an fsync runs.
  const always = <T>(value: T) => ({ configurable: true, get: () => value, set: () => undefined });
  Object.defineProperties(volume, { sys: always(sys), sysForNew: always(sys), inline: always(inline) });
}

/** Local file systems are always contended. */
export class StrainedVolumes extends ChangedVolumes {
  protected change(volume: Volume): void {
    if (volume.local) setAlways(volume, volume.pool, undefined);
  }
}

/** Maximum number of inline calls of a request. */
const callsAtOnceMax = 6;

/**
 * Local file systems become contended in the middle of requests: after no call of the first request, one of the second and so
 * on, until the next request.
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
