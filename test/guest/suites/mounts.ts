import { beforeAll, describe, expect, test } from 'vitest';
import { alice } from '../../support/guest.ts';
import { type Model, prelude } from '../check.ts';
import { type FixtureFactory, type GuestFixture, readonlyExports } from '../fixture.ts';

/** Mount options: exports, msize, access. */
export function testMounts(model: Model, make: FixtureFactory, msizes: readonly number[]): void {
  describe(`mounts of a ${model} export`, () => {
    let fixture: GuestFixture;
    const frozen = readonlyExports[model];

    beforeAll(async () => {
      fixture = await make();
      await fixture.onHost(model, 'echo content > here; chmod 644 here');
      await fixture.onHost(frozen, 'mkdir -p d; echo frozen > f; chmod 666 f');
    });

    test('an export is found by name and by path', async () => {
      for (const aname of [model, fixture.hostDir(model)]) {
        await fixture.mount('/mnt/a', aname);
        expect((await fixture.guest.sh('cat /mnt/a/here')).stdout).toBe('content');
        await fixture.guest.umount('/mnt/a');
      }
      await expect(fixture.mount('/mnt/a', 'nothing')).rejects.toThrow(
        /No such file|does not exist|no export of that name|exit status 32/,
      );
      await expect(fixture.mount('/mnt/a', `${fixture.hostDir(model)}/../..`)).rejects.toThrow();
    });

    test('the first export is found without a name', async () => {
      await fixture.mount('/mnt/a', undefined);
      await fixture.guest.sh('echo to the first > /mnt/a/unnamed');
      await fixture.guest.umount('/mnt/a');
      expect(await fixture.onHost('mapped', 'cat unnamed')).toBe('to the first');
    });

    test('a read-only export can be read and refuses every change', async () => {
      await fixture.mount('/mnt/ro', frozen);
      await fixture.guest.sh(`${prelude} cd /mnt/ro; same "$(cat f) $(ls | paste -sd,)" 'frozen d,f'
        for change in 'touch new' 'mkdir new' 'ln -s x new' 'mkfifo new' 'ln f new' 'mv f new' 'rm -f f' 'rmdir d' 'chmod 600 f' \\
          'chown 5 f' 'truncate -s 1 f' 'touch -d @5 f' 'setfattr -n user.x -v 1 f' 'dd if=/dev/null of=f status=none'; do
          fails 'Read-only file system' $change; done
        same "$(cat f)" frozen`);
      await fixture.guest.umount('/mnt/ro');
    });

    test.each(msizes)('messages of up to %d bytes carry files and listings', async msize => {
      await fixture.mount('/mnt/a', model, { msize });
      await fixture.guest.sh(`${prelude} cd /mnt/a; mkdir m; cd m; head -c 700001 /dev/urandom > /tmp/src; cp /tmp/src big; cmp big /tmp/src
        touch $(seq 300); same "$(ls | wc -l)" 301; long=$(printf 'n%.0s' $(seq 255)); touch $long; test -e $long
        ln -s $(printf 'x%.0s' $(seq 4000)) l; same "$(readlink l | wc -c)" 4001
        setfattr -n user.big -v $(printf 'v%.0s' $(seq 3000)) big; same "$(getfattr --only-values -n user.big big | wc -c)" 3000
        cd ..; rm -r m`);
      await fixture.guest.umount('/mnt/a');
    });

    test('access=any lets every user act as one, access=UID only that one', async () => {
      await fixture.mount('/mnt/a', model, { access: 'any' });
      // With passthrough all users act as nobody, who needs permission.
      await fixture.onHost(model, 'chmod 777 .; umask 0; mkdir -m 777 any');
      await fixture.guest.sh('echo x > /mnt/a/any/f; cat /mnt/a/any/f', { user: alice });
      await fixture.guest.umount('/mnt/a');
      await fixture.mount('/mnt/a', model, { access: '1000', bare: true });
      await fixture.guest.sh('cat /mnt/a/here; echo y > /mnt/a/any/g', { user: alice });
      await fixture.guest.sh('! cat /mnt/a/here; umount -l /mnt/a');
    });

    test('sixteen directories deep and deeper, every user can walk from the root', async () => {
      await fixture.mount('/mnt/a', model);
      const path = Array.from({ length: 40 }, (_, i) => `level${i}`).join('/');
      await fixture.guest.sh(
        `mkdir -p /mnt/a/${path}; echo deep > /mnt/a/${path}/f; cd /mnt/a/${path}; cat f`,
      );
      expect((await fixture.guest.sh(`cat /mnt/a/${path}/f`, { user: alice })).stdout).toBe('deep');
      await fixture.guest.umount('/mnt/a');
    });

    test('at the end the kernel log is clean and the server holds nothing', () => fixture.expectClean());
  });
}
