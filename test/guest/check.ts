export type Model = 'mapped' | 'passthrough';
export type Cache = 'none' | 'mmap' | 'loose';

/**
 * A bash script that exits with 0 if a property of a file system holds. Runs as root in an empty directory (mode 0777) of the
 * file system under test, with the functions of the prelude. It must also pass on the guest's own ext4, which proves that Linux
 * has the property.
 */
export interface Check {
  title: string;
  script: string;
  /** Number of repetitions, in `$work` of its scripts; fewer on a slow fixture. */
  work?: number;
  /** Milliseconds; 60 000 if left out. */
  timeout?: number;
  /** Only cells for which this is true; all if left out. */
  where?: (cell: Cell) => boolean;
  /** Script that the server's machine runs in that directory before; not on `local`. */
  prepare?: string;
  /** Checks on the server's machine afterwards in the same directory. */
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

/** Whether the guest can map a file shared and writable: not without a cache. */
export function mapsShared({ cache }: Cell): boolean {
  return cache !== 'none';
}

/** True for the local file system and two cells that differ in everything: for slow checks. */
export function corner({ model, cache }: Cell): boolean {
  return (
    model === 'local' ||
    (model === 'mapped' && cache === 'none') ||
    (model === 'passthrough' && cache === 'loose')
  );
}

/** Functions of the prelude. alice and bob are uid 1000 and 1001 with groups of the same number, both in team (2000). */
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

/** Access to a check's directory on the server's machine, independent of the security model. */
export class HostView {
  readonly model: Model;
  /** Runs a script in that directory; resolves to its output. */
  readonly sh: (script: string) => Promise<string>;

  constructor(model: Model, sh: (script: string) => Promise<string>) {
    this.model = model;
    this.sh = sh;
  }

  /** Owner and mode as the client sees them, from the record or from the inode. */
  async owner(name: string): Promise<{ uid: number; gid: number; mode: number }> {
    if (this.model === 'passthrough') return this.real(name);
    return {
      uid: await this.#u32(name, 'uid'),
      gid: await this.#u32(name, 'gid'),
      mode: await this.#u32(name, 'mode'),
    };
  }

  /** The inode's attributes; `blocks` of 512 bytes, `mtime` in seconds. */
  async real(name: string) {
    const [uid, gid, mode, size, blocks, mtime] = (await this.sh(`stat -c '%u %g %f %s %b %Y' -- ${name}`))
      .split(' ')
      .map((field, i) => Number.parseInt(field, i === 2 ? 16 : 10));
    return { uid: uid!, gid: gid!, mode: mode!, size: size!, blocks: blocks!, mtime: mtime! };
  }

  /** An xattr in hexadecimal; undefined if missing or empty. */
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
