import { beforeAll, describe, expect, test } from 'vitest';
import { alice } from '../support/guest.ts';
import { cell, prelude } from './check.ts';
import { sharedFixture, testChecks } from './fixture.ts';
import { NestedFixture } from './nested-fixture.ts';
import { checks } from './suites/checks.ts';
import { testCoherence } from './suites/coherence.ts';
import { testLocks } from './suites/locks.ts';
import { testMounts } from './suites/mounts.ts';

// AF_VSOCK with server, mount helper and client in one guest, whose kernel has vsock loopback; this machine's may not. The
// server is emulated too, five to ten times slower than on this machine.

const over = sharedFixture(() => NestedFixture.start());

testChecks('the checks over AF_VSOCK', [cell('mapped', 'none')], checks, over);
testLocks('mapped', over);
testCoherence('mapped', over);
testMounts('mapped', over, [4096, 1_048_576]);

describe('over AF_VSOCK', () => {
  let inner: NestedFixture;
  const sh = (script: string, options = {}) => inner.guest.sh(`${prelude}\n${script}`, options);
  const mount = (path: string) => inner.mount(path, 'mapped');

  beforeAll(async () => {
    inner = await over();
    await mount('/mnt/vsock');
  });

  test('the server says where it listens, how to mount, and which machine has connected', async () => {
    const log = await inner.log();
    expect(log).toMatch(/^listening on vsock:\/\/1:564$/m);
    expect(log).toMatch(
      /on this machine: mount -t 9pvsock -o msize=1048576,aname=mapped,access=client 1 \/mnt/,
    );
    expect(log).toMatch(/vsock cid 1 port \d+: connected/);
  });

  describe('mount.9pvsock', () => {
    test('does what a line of fstab says: generic options by mount(2), the rest by the 9p client', async () => {
      await sh(`
        mkdir -p /mnt/f
        options=ro,nosuid,nodev,noexec,noatime,_netdev,nofail,x-systemd.requires=x,retry=5,aname=mapped,cache=mmap
        echo "1:564 /mnt/f 9pvsock $options 0 0" >/tmp/fstab
        mount -T /tmp/fstab /mnt/f
        grep ' /mnt/f ' /proc/mounts >/tmp/line; read -r device dir type options rest </tmp/line
        same "$device $type" '1:564 9p'
        # The kernel shows cache=mmap by its bits.
        for option in ro nosuid nodev noexec noatime trans=fd cache=0x5 aname=mapped; do
          case ,$options, in *,$option,*) ;; *) echo "no $option in $options" >&2; exit 1 ;; esac
        done
        case $options in *_netdev*|*retry*|*nofail*) exit 1 ;; esac
        fails 'Read-only' touch /mnt/f/x
        mount -T /tmp/fstab -a; same "$(grep -c ' /mnt/f ' /proc/mounts)" 1
        mount -o remount,rw /mnt/f; touch /mnt/f/x; rm /mnt/f/x
        umount /mnt/f`);
    });

    test('waits for a server that is not there yet, as long as it is told to', async () => {
      await inner.end('TERM');
      expect(await inner.log()).toMatch(/vsock cid 1 port \d+: closed\n(?:.*\n)*.*stopped$/);
      const waiting = sh(
        'mkdir -p /mnt/r; mount -t 9pvsock -o retry=60,aname=mapped 1:564 /mnt/r; ls /mnt/r; umount /mnt/r',
      );
      await sh('sleep 1');
      await inner.serve();
      await waiting;
    });

    test('says what is wrong and what to do', async () => {
      await sh(`
        mkdir -p /mnt/e; m() { mount -t 9pvsock "$@"; }
        fails 'nothing listens there; start the server, or let this wait for it with -o retry=SECONDS' m 1:4711 /mnt/e
        fails 'the device is CID or CID:PORT; the host is CID 2' m host:564 /mnt/e
        fails 'the device is CID or CID:PORT' m 1:4294967295 /mnt/e
        fails 'leave it out, since the transport is vsock' m -o trans=tcp 1 /mnt/e
        fails 'it is a number of seconds' m -o retry=soon 1 /mnt/e
        fails 'no export of that name (aname=) there' m -o aname=nothing 1 /mnt/e
        # With the loop in, the kernel takes CID 2 for itself too.
        fails 'this guest has no vsock device, or not its driver' m 3 /mnt/e`);
    });

    test('is for root', async () => {
      await inner.guest.sh('mkdir -p /tmp/mine');
      const tried = await inner.guest.sh('/usr/sbin/mount.9pvsock 1 /tmp/mine -o aname=mapped', {
        user: alice,
        expectCode: 32,
      });
      expect(tried.stderr).toContain('only root may mount');
    });
  });

  test('socat mounts where the helper is not installed', async () => {
    await sh(`
      mkdir -p /mnt/s
      socat VSOCK-CONNECT:1:564 \\
        EXEC:'mount -t 9p -o trans=fd\\,rfdno=0\\,wfdno=1\\,version=9p2000.L\\,aname=mapped vsock /mnt/s',nofork
      echo by socat > /mnt/s/f; same "$(cat /scratch/exports/mapped/f)" 'by socat'; umount /mnt/s`);
  });

  test('a server that is killed costs its mounts, which come off and can be made anew', async () => {
    await mount('/mnt/k');
    await sh('echo before > /mnt/k/f');
    await inner.end('KILL');
    await sh("fails 'Input/output error' stat /mnt/k/f; umount /mnt/k");
    await inner.serve();
    await mount('/mnt/k');
    await sh('same "$(cat /mnt/k/f)" before; umount /mnt/k');
  });

  test('a socket of this family can be handed over by a service manager', async () => {
    await inner.end('TERM');
    // sockaddr_vm of vsock(7): family 40, port 564, CID 1.
    const listening = `exec perl -e '$^F = 9; socket(S, 40, 1, 0) or die; bind(S, pack("S S L L x4", 40, 0, 564, 1)) or die;
      listen(S, 9) or die; fileno(S) == 3 or die; exec @ARGV'`;
    await inner.serve('fd://3', listening);
    await mount('/mnt/h');
    await sh('touch /mnt/h/handed; test -e /scratch/exports/mapped/handed; umount /mnt/h');
    expect(await inner.log()).toMatch(/listening on fd:\/\/3\n(?:.*\n)*.*vsock cid 1 port \d+: connected/);
    await inner.end('TERM');
  });
});
