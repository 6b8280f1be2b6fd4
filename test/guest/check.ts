export type Model = 'mapped' | 'passthrough';
export type Cache = 'none' | 'mmap' | 'loose';

/**
 * A statement about a file system, as a bash script that ends with 0 if it holds. It runs as root in a fresh, empty
 * directory (mode 0777) of the file system under test, and may use what the prelude defines. The same script has
 * to hold on the guest's own ext4: that shows that the statement is Linux's and not ours.
 */
export interface Check {
  title: string;
  script: string;
  /** How much of something it does. `$work` in its scripts is that or, on a slow fixture, a share of it. */
  work?: number;
  /** Milliseconds; 60 000 if left out. */
  timeout?: number;
  /** Only cells for which this is true; all if left out. */
  where?: (cell: Cell) => boolean;
  /** What the server's machine does in that directory before; the script must do without on `local`. */
  prepare?: string;
  /** What the server's machine must see of it afterwards in the same directory. */
  host?: (seen: HostView) => Promise<void>;
}

/** A file system under test: one mount, or (model `local`) the guest's own ext4. */
export interface Cell {
  name: string;
  model: Model | 'local';
  cache: Cache | 'local';
}

export const local: Cell = { name: 'ext4 of the guest itself', model: 'local', cache: 'local' };

export function cell(model: Model, cache: Cache): Cell {
  return { name: `${model}, cache=${cache}`, model, cache };
}

/** True where the guest may map a file shared and writable: not without a cache. */
export function mapsShared({ cache }: Cell): boolean {
  return cache !== 'none';
}

/** True for the local file system and for two cells that differ in everything: enough for what takes long. */
export function corner({ model, cache }: Cell): boolean {
  return (
    model === 'local' ||
    (model === 'mapped' && cache === 'none') ||
    (model === 'passthrough' && cache === 'loose')
  );
}

/** The prelude's words. alice and bob are uid 1000 and 1001 with groups of the same number, both in team (2000). */
export const prelude = `
as() {
  local who=$1 id; shift
  case $who in alice) id=1000 ;; bob) id=1001 ;; esac
  setpriv --reuid $id --regid $id --groups $id,2000 -- "$@"
}
# same GOT WANTED
same() {
  if [ "$1" != "$2" ]; then printf 'line %s\\nwanted: %s\\ngot:    %s\\n' "\${BASH_LINENO[0]}" "$2" "$1" >&2; exit 1; fi
}
# fails PART-OF-THE-MESSAGE COMMAND...
fails() {
  local part=$1 said; shift
  if said=$("$@" 2>&1); then echo "line \${BASH_LINENO[0]}: did not fail: $*" >&2; exit 1; fi
  case $said in
    *"$part"*) ;;
    *) printf 'line %s: %s\\nwanted: %s\\ngot:    %s\\n' "\${BASH_LINENO[0]}" "$*" "$part" "$said" >&2; exit 1 ;;
  esac
}
# what FILE...: mode and owner of each
what() { stat -c '%a %u:%g' -- "$@" | paste -sd' '; }
umask 022
`;

/** What the server's machine has in a check's directory, whatever the security model stores it as. */
export class HostView {
  readonly model: Model;
  /** Runs a script there, in that directory; resolves with its output. */
  readonly sh: (script: string) => Promise<string>;

  constructor(model: Model, sh: (script: string) => Promise<string>) {
    this.model = model;
    this.sh = sh;
  }

  /** The client's owner and full mode, read straight from the attributes or from the inode. */
  async owner(name: string): Promise<{ uid: number; gid: number; mode: number }> {
    if (this.model === 'passthrough') return this.real(name);
    return {
      uid: await this.#u32(name, 'uid'),
      gid: await this.#u32(name, 'gid'),
      mode: await this.#u32(name, 'mode'),
    };
  }

  /** What the inode itself says; `blocks` of 512 bytes, `mtime` in whole seconds. */
  async real(name: string) {
    const [uid, gid, mode, size, blocks, mtime] = (await this.sh(`stat -c '%u %g %f %s %b %Y' -- ${name}`))
      .split(' ')
      .map((field, i) => Number.parseInt(field, i === 2 ? 16 : 10));
    return { uid: uid!, gid: gid!, mode: mode!, size: size!, blocks: blocks!, mtime: mtime! };
  }

  /** A raw attribute as hexadecimal digits; undefined if there is none, or nothing in it. */
  async attribute(name: string, attribute: string): Promise<string | undefined> {
    const value = await this.sh(
      `{ getfattr -h --absolute-names --only-values -n ${attribute} -- ${name} 2> /dev/null || true; } | od -An -v -tx1 | tr -d ' \\n'`,
    );
    return value === '' ? undefined : value;
  }

  async #u32(name: string, field: string): Promise<number> {
    const value = await this.attribute(name, `user.virtfs.${field}`);
    if (value?.length !== 8) throw new Error(`${name}: user.virtfs.${field} is ${value}`);
    return Buffer.from(value, 'hex').readUInt32LE(0);
  }
}
