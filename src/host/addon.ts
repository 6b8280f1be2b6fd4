import { createRequire } from 'node:module';

/** Groups that the addon keeps for a caller who is in more than the control block has room for. */
export type GroupList = object & { readonly groupList: unique symbol };

/** The two ways to make the call that the control block describes. They return its result: 0 or more, or −errno. */
export interface Binding {
  /** At once, on this thread. */
  run(data?: Uint8Array | readonly Uint8Array[]): number;
  /** On the pool. 0 when it was queued; the result comes through the `finished` of `attach`. */
  submit(data?: Uint8Array | readonly Uint8Array[]): number;
  /** By the loop's helper: the result, or `layout.late`: then it comes through `finished`. The data is copied. */
  handOff(data?: Uint8Array | readonly Uint8Array[]): number;
  /** Takes back what was submitted with this slot. False when it runs or is done. */
  withdraw(slot: number): boolean;
  /** The caller in the block is in these groups. Its count says that there are more than the block has room for. */
  useGroups(list: GroupList): void;
}

/** Descriptors that the event loop waits for. Both return 0 or −errno. */
export interface Watching {
  /** Reports the id while the descriptor is readable or hung up; with `edge`, each time it becomes so. */
  add(fd: number, id: number, edge: boolean): number;
  remove(fd: number): number;
}

/** What native-shims exports. */
export interface Addon {
  /** The names of the shims; the index is what the control block calls a shim by. */
  readonly shims: readonly string[];
  /** The host's constants by their names in the C headers, as unsigned 32-bit numbers. */
  readonly constants: Readonly<Record<string, number>>;
  /** Where the control block has what, in bytes. */
  readonly layout: Readonly<Record<string, number>>;
  attach(block: ArrayBuffer, finished: (count: number) => void): Binding | undefined;
  /** A list of these gids, 32 bits each; undefined when there are more than NGROUPS_MAX. */
  groupList(gids: Uint8Array): GroupList | undefined;
  /** Threads of each place, and calls of one session that may run in it at a time. */
  setPoolBounds(threads: number, running: number): void;
  /** `ready` is called with the count of ids that stand in the block, at most 64 words. */
  watch(block: ArrayBuffer, ready: (count: number) => void): Watching | undefined;
  /** A mapping's memory, to be asked for once; the mapping ends when it is collected. */
  memory(mapping: number, bytes: number): ArrayBuffer | undefined;
}

// Another build of the addon: the tests name the one with the sanitizers here.
const place = process.env.NINEPD_ADDON ?? 'native-shims';
const require = createRequire(import.meta.url);

function load(): Addon {
  try {
    return require(place) as Addon;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    throw new Error(
      `The native addon cannot be loaded from ${place}: ${reason}. ` +
        'Build it with `npm rebuild native-shims`, or `npm install` in the folder of ninepd (a C compiler is needed).',
    );
  }
}

/** The addon; it is loaded here and nowhere else. */
export const addon: Addon = load();

/** Its file. */
export const addonPath: string = require.resolve(place);
