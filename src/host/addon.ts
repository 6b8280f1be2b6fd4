import { closeSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';

/** Groups of a caller who has more than the control block has room for; the addon has them in memory. */
export type GroupList = object & { readonly groupList: unique symbol };

/** Ways to make the call that the control block describes. Results are 0 or more, or −errno. */
export interface Binding {
  /** Inline. Returns the result. */
  run(data?: Uint8Array | readonly Uint8Array[]): number;
  /** On the pool. Returns 0 if the call was queued; the result comes through the `finished` of `attach`. */
  submit(data?: Uint8Array | readonly Uint8Array[]): number;
  /** By the loop's helper thread. Returns the result, or `layout.late`: it then comes through `finished`. Copies the data. */
  handOff(data?: Uint8Array | readonly Uint8Array[]): number;
  /** Removes the submitted call of this slot. False if it has begun. */
  withdraw(slot: number): boolean;
  /** Sets the groups of the caller in the block, if it has more than the block has room for. */
  useGroups(list: GroupList): void;
}

/** The epoll instance of the event loop. Both return 0 or −errno. */
export interface Epoll {
  /** Reports the id while the descriptor is readable or hung up; with `edge`, each time it becomes so. */
  add(fd: number, id: number, edge: boolean): number;
  remove(fd: number): number;
}

/** What native-shims exports. */
export interface Addon {
  /** The names of the shims; the control block has the index. */
  readonly shims: readonly string[];
  /** The host's constants by their names in the C headers, as unsigned 32-bit numbers. */
  readonly constants: Readonly<Record<string, number>>;
  /** Offsets of the control block's fields, and sizes. */
  readonly layout: Readonly<Record<string, number>>;
  attach(block: ArrayBuffer, finished: (count: number) => void): Binding | undefined;
  /** A list of these gids, 32 bits each; undefined when there are more than NGROUPS_MAX. */
  groupList(gids: Uint8Array): GroupList | undefined;
  /** The most threads of each pool, and calls of one session that run in a pool at a time. */
  setPoolBounds(threads: number, running: number): void;
  /** Calls `ready` with the count of ids in the block, EPOLL_READY_MAX words. */
  watch(block: ArrayBuffer, ready: (count: number) => void): Epoll | undefined;
}

const require = createRequire(import.meta.url);

/** Which build of the addon this Node.js loads, `ARCH-LIBC`: its ELF interpreter is the dynamic linker of its C library. */
function target(): string {
  const head = Buffer.alloc(4096);
  try {
    const fd = openSync(process.execPath, 'r');
    readSync(fd, head, 0, head.length, 0);
    closeSync(fd);
  } catch {
    // A program that may be executed and not read.
  }
  return `${process.arch}-${head.includes('/ld-musl-') ? 'musl' : 'glibc'}`;
}

/** The addon's file. The tests name other builds in NINEPD_ADDON. */
function find(): string {
  const { NINEPD_ADDON: named } = process.env;
  if (named !== undefined) return named;
  const wanted = target();
  try {
    // package.json maps it to native-shims/build.
    return require.resolve(`#addon/${wanted}/native-shims.node`);
  } catch (error) {
    const missing =
      error instanceof Error ? / '([^']*native-shims\.node)'/.exec(error.message)?.[1] : undefined;
    throw new Error(
      `The native addon for ${wanted} is missing: ${missing ?? error}. The published package has it for x64 and arm64, with ` +
        'glibc 2.28 or later and with musl. In a clone of ninepd `npm start` compiles it (a C compiler is needed).',
    );
  }
}

function load(path: string): Addon {
  try {
    return require(path) as Addon;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    throw new Error(`The native addon ${path} cannot be loaded: ${reason}`);
  }
}

/** Its file. */
export const addonPath: string = find();

/** The addon. No other module loads it. */
export const addon: Addon = load(addonPath);

/** A number of the control block's layout. */
export function layoutOf(name: string): number {
  const value = addon.layout[name];
  if (value === undefined)
    throw new Error(`The native addon does not export the layout of ${name}: rebuild it.`);
  return value;
}
