import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prelude } from './check.ts';
import { NestedFixture } from './nested-fixture.ts';

// A disk that fails by the device-mapper. That needs its kernel modules, so ninepd runs in the guest: client, server and disk
// are on one machine.

const device = '/dev/mapper/disk';
const sectors = 131_072;
const sound = 'linear /dev/loop0 0';

/** `disk TABLE` changes the disk's table under the mounted file system. */
const words = `${prelude}
export DM_DISABLE_UDEV=1
disk() {
  dmsetup load disk --table "0 ${sectors} $*"
  dmsetup suspend --nolockfs disk
  dmsetup resume disk
}
forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }
`;

describe('a disk with a fault', () => {
  let fixture: NestedFixture;
  let exported: string;
  const sh = (script: string) => fixture.guest.sh(`${words}\n${script}`);
  const mountDisk = () => `mount -o noatime,errors=remount-ro ${device} ${exported}`;

  async function serve(): Promise<void> {
    await fixture.serve();
    await fixture.mount('/mnt/disk', 'mapped');
    await fixture.mount('/mnt/else', 'frozen');
  }

  /** Logged host errors: the errno and the first request. */
  async function warnings(): Promise<string[]> {
    const found = (await fixture.log()).matchAll(/WARN: mapped: (\w+): .*; request: (\w+)/g);
    return [...found].map(([, errno, request]) => `${errno} ${request}`);
  }

  beforeAll(async () => {
    fixture = await NestedFixture.start();
    exported = fixture.hostDir('mapped');
    await fixture.end('TERM');
    await sh(`
      guest-module loop dm_mod dm_delay
      truncate -s $((${sectors} * 512)) /scratch/image; losetup /dev/loop0 /scratch/image
      dmsetup create disk --table "0 ${sectors} ${sound}"
      mkfs.ext4 -q ${device}; ${mountDisk()}; chmod 755 ${exported}
      echo elsewhere >${fixture.hostDir('frozen')}/file
      seq 10000 >/tmp/content`);
    await serve();
  });
  afterAll(async () => {
    await fixture?.stop();
  });

  test('that cannot be read for a while is EIO, and when it can again all goes on, files that stayed open too', async () => {
    await sh(`
      cd /mnt/disk
      dd if=/tmp/content of=file conv=fsync status=none; forget
      exec 3<file; stat file >/tmp/before
      disk error
      for i in 1 2 3; do fails 'Input/output error' cat <&3; done
      fails 'Input/output error' dd if=file of=/tmp/none bs=4k skip=7 count=1
      # What is in memory is there.
      stat file | cmp - /tmp/before
      same "$(cat /mnt/else/file)" elsewhere
      disk ${sound}
      cmp - /tmp/content <&3; cmp file /tmp/content
      dd if=/tmp/content of=next conv=fsync status=none; forget; cmp next /tmp/content`);
    expect(await warnings()).toEqual(['EIO Tread']);
  });

  test('that cannot be written is EIO from fsync, and from everything once the journal is given up', async () => {
    await sh(`
      disk error
      perl -MIO::Handle -e 'open(F, "+<", "/mnt/disk/next") or die $!;
        for (1 .. 3) {
          syswrite(F, "x" x 4096) == 4096 or die $!;
          F->sync and die "fsync said nothing"; $!{EIO} or die $!;
        }'
      # The host's kernel writes its journal and gives it up; the next change finds that.
      fails 'Input/output error' sync -f ${exported}
      touch /mnt/disk/file || true
      all_fail() {
        cd /mnt/disk; local io='Input/output error'
        fails "$io" cat file; fails "$io" stat file; fails "$io" dd if=/tmp/content of=file conv=notrunc
        fails "$io" touch new; fails "$io" mkdir new; fails "$io" ln -s target new; fails "$io" ln file new
        fails "$io" mv file new; fails "$io" rm file; fails "$io" chmod 600 file; fails "$io" truncate -s 1 file
        fails "$io" setfattr -n user.x -v y file
        same "$(cat /mnt/else/file)" elsewhere
        cd /
      }
      all_fail
      # Linux 6.12 leaves an ext4 so, whatever becomes of its disk.
      disk ${sound}
      mount -o remount,rw ${exported}; all_fail
      # In its own root directory the server has it in use all the same.
      umount ${exported}; fails 'is in use' e2fsck -p ${device}`);
    // A new mount reaches only the root, and only if the server has cached its record.
    await fixture.mount('/mnt/again', 'mapped').then(
      () => sh(`fails 'Input/output error' cat /mnt/again/file; umount /mnt/again`),
      error => expect(`${error}`).toContain('Input/output error'),
    );
    // Logged in the previous test: once in ten minutes.
    expect(await warnings()).toEqual(['EIO Tread']);
  });

  test('has what was fsynced when it was checked and mounted anew, which needs the server started anew', async () => {
    await sh('umount /mnt/disk /mnt/else');
    await fixture.end('TERM');
    // Exit status 1: errors were corrected.
    await sh(`e2fsck -p ${device} || [ $? = 1 ]; ${mountDisk()}`);
    await serve();
    await sh(`
      cd /mnt/disk; cmp file /tmp/content
      # Of what fsync has failed for, nothing is promised; all else of that file is there.
      cmp -i 12288 next /tmp/content
      same "$(ls | tr '\\n' ' ')" 'file lost+found next '; same "$(what file)" '644 0:0'
      dd if=/tmp/content of=new conv=fsync status=none; mv new next; forget; cmp next /tmp/content`);
    expect(await warnings()).toEqual([]);
  });

  test('that is slow keeps nobody waiting but who reads from it', async () => {
    await sh(`
      cd /mnt/disk; echo slow >slow; echo quick >quick; forget
      # Attributes are in memory; the first that is not would block all requests: docs/filesystems.md, "Contention".
      stat slow >/tmp/none; cat quick >/tmp/quick
      disk delay /dev/loop0 0 3000
      cat slow >/tmp/slow & reader=$!
      rounds=0
      # By the same connection what is in memory, and what lies elsewhere.
      while kill -0 $reader 2>/dev/null; do
        cat quick /mnt/else/file >/tmp/quick; rounds=$((rounds+1))
      done
      wait $reader; same "$(cat /tmp/slow)" slow; same "$(tr '\\n' ' ' </tmp/quick)" 'quick elsewhere '
      disk ${sound}
      [ $rounds -ge 5 ]`);
  });

  test('leaves the guest’s kernel nothing to complain about, and the server holds nothing', async () => {
    await sh('umount /mnt/disk /mnt/else');
    await fixture.expectClean();
  });
});
