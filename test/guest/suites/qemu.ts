import { beforeAll, describe, expect, test } from 'vitest';
import type { FixtureFactory } from '../fixture.ts';
import type { HostFixture, QemuModel } from '../host-fixture.ts';

// Every kind of object, with owners, modes and times that are not the default.
const makeTree = `
  umask 022; mkdir -p t/d/e; echo text > t/f; ln t/f t/hard; ln -s f t/rel; ln -s /absolute/nowhere t/abs
  mkfifo t/p; mknod t/c c 1 3; mknod t/b b 259 70000; perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("t/s")) or die'
  chown 1000:1001 t/f; chmod 6754 t/f; chown -h 7:8 t/rel; chmod 1777 t/d; chmod 2710 t/d/e; chown 4000000000:3000000000 t/d/e
  chown 9:9 t/p; chmod 600 t/p; chmod 4000 t/c; touch -d @1000000 t/f t/d/e; touch -hd @2000000 t/rel
  mkdir t/d/inherits; touch t/d/plain`;

const makeXattrs = `
  setfattr -n user.key -v value t/f; setfacl -m u:1001:rwx t/d; setfacl -d -m u:1001:rx t/d; mkdir t/d/inherits-acl; touch t/d/plain-acl`;

// A listing of all that a guest can see of it but the directories' sizes and the inode numbers' values.
const listing = `
  find t -printf '%P|%y|%m|%U:%G|%l|%T@|' -a \\( -type d -printf '\\n' -o -printf '%n|%s\\n' \\) | sort
  stat -c '%n %t:%T' t/b t/c; cat t/f; for n in f hard; do stat -c %i t/$n; done | sort -u | wc -l`;

const listXattrs = 'getfacl -nRs t; getfattr -hdR t; find t -type d -printf "%P|%n\\n" | sort';

/**
 * QEMU's own virtio-9p and ninepd's model of the same records serve the same directory to the same guest: what either has made
 * looks the same through both. `mapped-file` has no xattrs here; QEMU counts its metadata directories in the links of directories.
 */
export function testQemuTrees(make: FixtureFactory<HostFixture>, model: QemuModel): void {
  const xattrs = model === 'mapped';
  const makeAll = xattrs ? makeTree + makeXattrs : makeTree;
  const listAll = xattrs ? `${listing}; ${listXattrs}` : listing;

  describe(`trees that QEMU has made, ${model}`, () => {
    let fixture: HostFixture;

    beforeAll(async () => {
      fixture = await make();
      await fixture.mountQemu('/mnt/qemu', { posixacl: xattrs }, model);
      await fixture.mount('/mnt/ninepd', model, { posixacl: xattrs });
    });

    const both = async (script: string) => {
      const seen = await Promise.all(
        ['qemu', 'ninepd'].map(mount =>
          fixture.guest.sh(`cd /mnt/${mount}/work; ${script}`).then(({ stdout }) => stdout),
        ),
      );
      return { qemu: seen[0], ninepd: seen[1] };
    };

    test.each(['qemu', 'ninepd'])('a tree that %s has made looks the same through both', async maker => {
      await fixture.guest.sh(`mkdir /mnt/${maker}/work; cd /mnt/${maker}/work; ${makeAll}`);
      const { qemu, ninepd } = await both(listAll);
      expect(ninepd).toBe(qemu);
      expect(ninepd).toContain('f|f|6754|1000:1001||1000000.0000000000|2|5');
      expect(ninepd).toContain('d/e|d|2710|4000000000:3000000000||');
      expect(ninepd).toContain('abs|l|777|0:0|/absolute/nowhere|');
      expect(ninepd).toContain('t/b 103:11170');
      if (xattrs) expect(ninepd).toContain('user:1001:r-x');
      await fixture.guest.sh(`rm -r /mnt/${maker}/work`);
    });

    test.each([
      ['qemu', 'ninepd'],
      ['ninepd', 'qemu'],
    ])('what %s has made %s can change, link, rename and remove', async (maker, changer) => {
      await fixture.guest.sh(`mkdir /mnt/${maker}/work; cd /mnt/${maker}/work; ${makeAll}`);
      await fixture.guest.sh(`
        cd /mnt/${changer}/work; chmod 640 t/f; chown 55:66 t/rel -h; mv t/p t/d/p2; ln t/c t/c2; rm t/b; mknod t/b b 103 0x11170
        echo more >> t/hard; mv t/rel t/d/e/; chmod u+s t/d/plain; rm t/s; mkdir t/s; mv t/d/inherits t/s/
        ${xattrs ? 'chmod u+s t/d/plain-acl; setfacl -b t/d; setfattr -x user.key t/f' : ''}`);
      const { qemu, ninepd } = await both(listAll.replace('t/b t/c', 't/b t/c t/c2'));
      expect(ninepd).toBe(qemu);
      expect(ninepd).toContain('d/e/rel|l|777|55:66|f|');
      expect(ninepd).toContain('d/p2|p|600|9:9||');
      expect(ninepd).toContain('hard|f|640|1000:1001||');
      await fixture.guest.sh(`rm -r /mnt/${changer}/work`);
    });

    test('files that neither has made, native symlinks among them, look the same through both', async () => {
      await fixture.onHost(
        model,
        `mkdir -p work/t; cd work/t; echo by hand > f; chmod 640 f; ln -s f native; mkdir -m 711 d`,
      );
      const { qemu, ninepd } = await both(
        "find t -printf '%P|%y|%m|%U:%G|%n|%l|%T@\\n' | sort; cat t/native",
      );
      expect(ninepd).toBe(qemu);
      expect(ninepd).toContain('native|l|777|0:0|1|f|');
      expect(ninepd).toContain('by hand');
    });

    test('the model’s own attributes are neither shown nor given away', async () => {
      await fixture.guest.sh(
        xattrs
          ? `cd /mnt/ninepd; touch own; chown 5:6 own
             [ -z "$(getfattr -d -m virtfs own)" ]
             ! getfattr -n user.virtfs.uid own 2> /dev/null; ! setfattr -n user.virtfs.uid -v 0 own 2> /dev/null
             ! setfattr -x user.virtfs.uid own 2> /dev/null; [ "$(stat -c %u:%g own)" = 5:6 ]`
          : `cd /mnt/ninepd; touch own; chown 5:6 own; chmod 755 .
             [ -z "$(ls -A | grep virtfs)" ]; ! setfattr -n user.a -v 0 own 2> /dev/null
             for name in .virtfs_metadata .virtfs_metadata_root; do
               ! cat $name/own 2> /dev/null; ! mkdir $name 2> /dev/null; ! touch $name 2> /dev/null; ! mv own $name 2> /dev/null
               ! mv $name x 2> /dev/null; ! ln own $name 2> /dev/null; ! ln -s own $name 2> /dev/null; ! rmdir $name 2> /dev/null
             done; [ "$(stat -c %u:%g own)" = 5:6 ]`,
      );
    });

    test('at the end the kernel log is clean and the server holds nothing', async () => {
      await fixture.guest.umount('/mnt/qemu');
      await fixture.guest.umount('/mnt/ninepd');
      await fixture.expectClean();
    });
  });
}
