import { beforeAll, describe, expect, test } from 'vitest';
import { cell, type Model } from '../check.ts';
import type { FixtureFactory, GuestFixture } from '../fixture.ts';

/** Changes of one side as the other side sees them. */
export function testCoherence(model: Model, make: FixtureFactory): void {
  describe(`changes of the host and of the guest in a ${model} export`, () => {
    let fixture: GuestFixture;
    const host = (script: string) => fixture.onHost(model, script);
    const cat = async (path: string) => (await fixture.guest.sh(`cat ${path}`)).stdout;

    beforeAll(async () => {
      fixture = await make();
      await fixture.mountCell(cell(model, 'none'), '/mnt/none');
      await fixture.mountCell(cell(model, 'loose'), '/mnt/loose');
    });

    test('without a cache the guest sees what the host writes, makes, replaces and removes at once', async () => {
      await host('printf one > a');
      expect(await cat('/mnt/none/a')).toBe('one');
      await host("printf 'second, longer' > a");
      expect(await cat('/mnt/none/a')).toBe('second, longer');
      await host("printf 'by rename' > a.new; mv a.new a");
      expect(await cat('/mnt/none/a')).toBe('by rename');
      await host('mkdir d; : > d/x');
      expect((await fixture.guest.sh('ls /mnt/none/d')).stdout).toBe('x');
      await host('rm d/x');
      expect((await fixture.guest.sh('ls /mnt/none/d; [ ! -e /mnt/none/d/x ]')).stdout).toBe('');
      await host('mv d e');
      await fixture.guest.sh('[ ! -e /mnt/none/d ] && [ -d /mnt/none/e ]');
    });

    test('an open file of the guest sees what the host appends, and follows a rename of the host', async () => {
      await host('echo first > log');
      const reading = fixture.guest.sh(`
        exec 3</mnt/none/log; cat <&3; touch /mnt/none/ready
        for i in $(seq 200); do [ -e /mnt/none/done ] && break; sleep 0.05; done; cat <&3; stat -Lc %h /proc/self/fd/3`);
      await host(`for i in $(seq 200); do [ -e ready ] && break; sleep 0.05; done; [ -e ready ]
        echo second >> log; mv log log.1; echo another > log; : > done`);
      expect((await reading).stdout).toBe('first\nsecond\n1');
    });

    test('what the guest writes is on the host when write returns without a cache, and after fsync with one', async () => {
      await fixture.guest.sh('exec 3>/mnt/none/w; printf now >&3; echo > /tmp/x; sleep 0.1');
      expect(await host('cat w')).toBe('now');
      await fixture.guest.sh('printf later > /mnt/loose/w2; sync /mnt/loose/w2');
      expect(await host('cat w2')).toBe('later');
    });

    test('in loose mode own writes stay in the cache through reopening, another user’s opening and a rename', async () => {
      await fixture.guest.sh(`
        cd /mnt/loose; rm -f dirty
        perl -e 'open(my $f, "+>", "dirty") or die; syswrite $f, "A" x 10000; open(my $g, "+<", "dirty") or die;
          sysseek $g, 5000, 0; syswrite $g, "B" x 100; sysseek $f, 4999, 0; sysread $f, my $got, 3; die $got if $got ne "ABB";
          rename "dirty", "renamed" or die; open(my $h, "<", "renamed") or die; local $/; my $all = <$h>;
          die length $all if length $all != 10000; die "content" if $all ne "A" x 5000 . "B" x 100 . "A" x 4900'
        chmod 644 renamed; setpriv --reuid 1000 --clear-groups cksum < renamed > /tmp/seen
        for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=part bs=5000 count=1 seek=$i conv=notrunc status=none; stat part > /dev/null; done
        sync renamed part; cksum renamed part | cut -d' ' -f1,2 > /tmp/loose; cd /mnt/none; cksum renamed part | cut -d' ' -f1,2 > /tmp/none
        cmp /tmp/loose /tmp/none; cksum < renamed | cmp - /tmp/seen`);
    });

    test('in loose mode a fresh lookup sees what the host has changed, even at the same size', async () => {
      await host('printf aaaa > v');
      expect(await cat('/mnt/loose/v')).toBe('aaaa');
      await host('printf bbbb > v');
      await fixture.guest.sh('sync; echo 2 > /proc/sys/vm/drop_caches');
      expect(await cat('/mnt/loose/v')).toBe('bbbb');
      await fixture.guest.sh('printf cccc > /mnt/none/v; sync; echo 2 > /proc/sys/vm/drop_caches');
      expect(await cat('/mnt/loose/v')).toBe('cccc');
    });

    test('in loose mode a random exercise has the same bytes after a remount and on the host', async () => {
      const rounds = Math.ceil(2500 * fixture.scale);
      await fixture.guest.sh(`exercise /mnt/loose/ex 77 ${rounds} mapread mapwrite`, { timeout: 240_000 });
      await fixture.guest.umount('/mnt/loose');
      await fixture.mountCell(cell(model, 'loose'), '/mnt/loose');
      await fixture.guest.sh('cmp /mnt/loose/ex /tmp/oracle-77; cmp /mnt/none/ex /tmp/oracle-77');
      expect(await host('sha256sum < ex')).toBe(
        (await fixture.guest.sh('sha256sum < /tmp/oracle-77')).stdout,
      );
    });

    test('at the end the kernel log is clean and the server holds nothing', async () => {
      await fixture.guest.umount('/mnt/none');
      await fixture.guest.umount('/mnt/loose');
      await fixture.expectClean();
    });
  });
}
