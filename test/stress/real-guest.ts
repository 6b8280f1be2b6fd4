import { Guest } from '../support/guest.ts';

/** A Linux guest that mounts exports over TCP, works in them and verifies checksums. */
export class RealGuest {
  rounds = 0;
  readonly #guest: Guest;
  readonly #paths: readonly string[];

  private constructor(guest: Guest, paths: readonly string[]) {
    this.#guest = guest;
    this.#paths = paths;
  }

  static async start(port: number, anames: readonly string[]): Promise<RealGuest> {
    const guest = await Guest.start({ cpus: 1 });
    const paths: string[] = [];
    for (const aname of anames) {
      for (const cache of ['none', 'loose'] as const) {
        const path = `/mnt/${aname}-${cache}`;
        await guest.mount({ trans: 'tcp', port, aname, cache, path });
        paths.push(path);
      }
    }
    return new RealGuest(guest, paths);
  }

  /** Writes a tree, drops caches, compares, renames, links, compares again, removes. */
  async round(): Promise<void> {
    const path = this.#paths[this.rounds++ % this.#paths.length]!;
    await this.#guest.sh(
      `
      rm -rf /tmp/src; mkdir -p /tmp/src/deep/er; cd /tmp/src
      for i in $(seq 12); do head -c $((RANDOM * 8)) /dev/urandom > $i; head -c $RANDOM /dev/urandom > deep/er/$i; done
      find . -type f -exec sha256sum {} + > /tmp/sums
      w=${path}/real-$$; mkdir $w; cp -a . $w; sync; echo 3 > /proc/sys/vm/drop_caches
      cd $w; sha256sum --check --quiet /tmp/sums
      mv deep/er moved; ln 1 deep/link; chmod 640 1; chown 5:6 1; setfattr -n user.k -v v 1
      test "$(stat -c '%a %u %g %h' 1) $(getfattr --only-values -n user.k 1)" = '640 5 6 2 v'
      cmp 1 deep/link; mv moved deep/er; sha256sum --check --quiet /tmp/sums; cd /; rm -r $w; test ! -e $w`,
      { timeout: 300_000 },
    );
  }

  async stop(): Promise<void> {
    const complaints = await this.#guest.complaints();
    for (const path of this.#paths) await this.#guest.umount(path);
    await this.#guest.stop();
    if (complaints.length > 0) throw new Error(`the guest's kernel says: ${complaints.join('; ')}`);
  }
}
