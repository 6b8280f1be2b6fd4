import { expect } from 'vitest';
import type { Check } from '../check.ts';

// Owners, modes, the special mode bits, ACLs and file capabilities, as root and as two users.

const regular = 0o100000;
const directory = 0o040000;

export const ownership: Check[] = [
  {
    title: 'a new object belongs to who makes it, with the mode that his umask leaves',
    script: `
      as alice bash -c 'umask 027; touch f; mkdir d; mkfifo p; ln -s target l'
      as bob bash -c 'umask 0; touch g; mkdir e'
      same "$(what f d p)" '640 1000:1000 750 1000:1000 640 1000:1000'
      same "$(what g e)" '666 1001:1001 777 1001:1001'
      same "$(stat -c %u:%g l)" 1000:1000
      touch r; same "$(what r)" '644 0:0'`,
    host: async seen => {
      expect(await seen.owner('f')).toMatchObject({ uid: 1000, gid: 1000, mode: regular | 0o640 });
      expect(await seen.owner('e')).toMatchObject({ uid: 1001, gid: 1001, mode: directory | 0o777 });
      if (seen.model === 'mapped') {
        expect(await seen.real('f')).toMatchObject({ uid: 0, gid: 0, mode: regular | 0o600 });
        expect(await seen.real('e')).toMatchObject({ uid: 0, gid: 0, mode: directory | 0o700 });
      }
    },
  },
  {
    title: 'chown and chmod do what the owner may and refuse what he may not',
    script: `
      as alice touch f
      as alice chmod 604 f; same "$(what f)" '604 1000:1000'
      fails 'not permitted' as bob chmod 777 f
      fails 'not permitted' as alice chown 1001 f
      fails 'not permitted' as alice chgrp 1001 f
      as alice chgrp 2000 f; same "$(what f)" '604 1000:2000'
      chown 1001:1001 f; same "$(what f)" '604 1001:1001'
      chown 4000000000:3000000000 f; same "$(what f)" '604 4000000000:3000000000'
      chown :7 f; same "$(what f)" '604 4000000000:7'
      ln -s nowhere l; chown -h 5:6 l; same "$(stat -c %u:%g l)" 5:6`,
    host: async seen =>
      expect(await seen.owner('f')).toMatchObject({ uid: 4_000_000_000, gid: 7, mode: regular | 0o604 }),
  },
  {
    title: 'permission is what mode and owner say, for files and for directories',
    script: `
      as alice bash -c 'umask 077; echo secret > f; mkdir d; echo in > d/x'
      fails 'Permission denied' as bob cat f
      fails 'Permission denied' as bob bash -c 'echo x > f'
      fails 'Permission denied' as bob ls d
      fails 'Permission denied' as bob cat d/x
      same "$(cat f d/x | paste -sd,)" secret,in
      as alice chmod 644 f; same "$(as bob cat f)" secret
      as alice chmod 711 d; fails 'Permission denied' as bob ls d; same "$(stat -c %u d/x)" 1000
      as alice chmod 400 f; fails 'Permission denied' as alice bash -c 'echo x > f'; same "$(as alice cat f)" secret
      as alice chmod 0 f; fails 'Permission denied' as alice cat f
      mkdir -m 755 own; fails 'Permission denied' as alice touch own/x`,
  },
  {
    title: 'a file opened before its mode was taken away stays readable and writable',
    script: `
      as alice bash -c 'exec 3<>f; chmod 000 f; echo data >&3; echo more >&3'
      same "$(paste -sd, f)" data,more; same "$(what f)" '0 1000:1000'`,
  },
  {
    title: 'a file made without write permission takes what its maker writes',
    script: `
      as alice bash -c 'umask 0222; echo content > f'; same "$(what f) $(cat f)" '444 1000:1000 content'
      as alice bash -c 'umask 0777; echo content > g'; same "$(what g) $(cat g)" '0 1000:1000 content'
      as alice cp -p f h; same "$(what h) $(cat h)" '444 1000:1000 content'`,
  },
  {
    title: 'set-id bits survive the chmod that sets them and go with a chown or a stranger’s write',
    script: `
      as alice bash -c 'echo text > f; chmod 6755 f'; same "$(what f)" '6755 1000:1000'
      chown 1001 f; same "$(what f)" '755 1001:1000'
      chown 1000 f; chmod 6777 f; as bob bash -c 'echo more >> f'; same "$(what f)" '777 1000:1000'
      chmod 6777 f; as bob truncate -s 3 f; same "$(what f)" '777 1000:1000'
      chmod 4777 f; echo root >> f; same "$(what f)" '4777 1000:1000'
      chmod 7777 f; same "$(what f)" '7777 1000:1000'`,
    host: async seen => expect(await seen.owner('f')).toMatchObject({ uid: 1000, mode: regular | 0o7777 }),
  },
  {
    title: 'a set-user-id program runs as its owner',
    script: `
      cp /usr/bin/id s; chown 1000:1000 s; chmod 4755 s
      same "$(as bob ./s -u)" 1000; same "$(as bob ./s -ur)" 1001
      chmod 2755 s; same "$(as bob ./s -g)" 1000`,
  },
  {
    title: 'in a sticky directory only owners remove and rename',
    script: `
      mkdir -m 1777 t; as alice touch t/f t/g
      fails 'not permitted' as bob rm -f t/f
      fails 'not permitted' as bob mv t/f t/h
      as bob touch t/mine; fails 'not permitted' as bob mv -f t/mine t/f
      as alice mv t/f t/h; as alice rm t/g; rm t/h; same "$(what t) $(ls t)" '1777 0:0 mine'`,
    host: async seen => expect(await seen.owner('t')).toMatchObject({ mode: directory | 0o1777 }),
  },
  {
    title: 'what is made in a set-group-id directory takes its group, and a directory the bit as well',
    script: `
      mkdir d; chown 0:2000 d; chmod 2775 d
      as alice bash -c 'umask 002; touch d/f; mkdir d/sub; mkfifo d/p; ln -s x d/l; touch d/sub/g'
      same "$(what d/f d/sub d/p)" '664 1000:2000 2775 1000:2000 664 1000:2000'
      same "$(stat -c %g d/l) $(what d/sub/g)" '2000 664 1000:2000'
      chgrp 50 d; as alice mkdir -m 775 d/foreign 2>/dev/null || chmod 2777 d
      as alice mkdir d/other; same "$(what d/other)" '2755 1000:50'`,
    host: async seen =>
      expect(await seen.owner('d/sub')).toMatchObject({ uid: 1000, gid: 2000, mode: directory | 0o2775 }),
  },
  {
    title: 'supplementary groups count, whether the host knows them or not',
    script: `
      echo text > f; chown 0:2000 f; chmod 660 f
      same "$(as alice cat f)" text; as bob bash -c 'echo bob >> f'; same "$(paste -sd, f)" text,bob
      fails 'Permission denied' setpriv --reuid 1002 --regid 1002 --clear-groups cat f
      mkdir d; chown 0:2000 d; chmod 770 d; as alice bash -c 'umask 002; touch d/f; mkdir d/sub'; same "$(what d/f)" '664 1000:1000'
      as bob mv d/f d/g; as bob rmdir d/sub; fails 'Permission denied' setpriv --reuid 1002 --regid 1002 --clear-groups ls d
      as alice chgrp 2000 d/g; as alice chmod 2775 d/g; same "$(what d/g)" '2775 1000:2000'
      as alice setfacl -m u:bob:rwx d/g; same "$(what d/g)" '2775 1000:2000'
      as alice chgrp 1000 d/g; same "$(what d/g)" '775 1000:1000'; fails 'not permitted' as alice chgrp 1001 d/g`,
    host: async seen =>
      expect(await seen.owner('d/g')).toMatchObject({ uid: 1000, gid: 1000, mode: regular | 0o775 }),
  },
  {
    title: 'a program that may be executed and not read runs',
    script: `
      cp /usr/bin/id p; chown 1001:1001 p; chmod 711 p
      # setpriv(1) itself still has capabilities when it executes a program.
      same "$(as alice bash -c './p -u')" 1000; fails 'Permission denied' as alice cat p
      chmod 710 p; fails 'Permission denied' as alice bash -c ./p
      chgrp 2000 p; same "$(as alice bash -c './p -u')" 1000`,
  },
  {
    title: 'who may link what others own is for this kernel to say',
    script: `
      protected=/proc/sys/fs/protected_hardlinks; before=$(cat $protected); touch f; chmod 644 f
      echo 0 > $protected; as alice ln f mine; as bob ln mine d; same "$(stat -c %h f)" 3
      echo 1 > $protected; fails 'not permitted' as alice ln f other; echo $before > $protected`,
  },
  {
    title: 'access ACLs give and take permission, and chmod moves their mask',
    script: `
      as alice bash -c 'umask 077; echo text > f; setfacl -m u:bob:rw f'
      same "$(as bob cat f)" text; as bob bash -c 'echo more >> f'
      same "$(getfacl -cEs f | paste -sd' ')" 'user::rw- user:bob:rw- group::--- mask::rw- other::--- '
      same "$(what f)" '660 1000:1000'
      as alice chmod 640 f; fails 'Permission denied' as bob bash -c 'echo x >> f'; same "$(as bob head -1 f)" text
      fails 'not permitted' as bob setfacl -m u:bob:rwx f
      as alice setfacl -b f; fails 'Permission denied' as bob cat f
      same "$(getfacl -cs f)" ''`,
  },
  {
    title: 'a default ACL is inherited by files and directories',
    script: `
      as alice bash -c 'mkdir -m 755 d; setfacl -d -m u:bob:rwX,g::r-X,o::- d; umask 022; touch d/f; mkdir d/sub; touch d/sub/g'
      same "$(getfacl -cE d/f | paste -sd' ')" 'user::rw- user:bob:rwx group::r-x mask::rw- other::--- '
      same "$(getfacl -cdE d/sub | paste -sd' ')" 'user::rwx user:bob:rwx group::r-x mask::rwx other::--- '
      same "$(what d/f d/sub)" '660 1000:1000 770 1000:1000'
      as bob bash -c 'echo bob > d/sub/g; touch d/sub/new'; same "$(cat d/sub/g) $(stat -c %u d/sub/new)" 'bob 1001'
      as alice setfacl -k d; as alice touch d/plain; same "$(what d/plain)" '644 1000:1000'`,
    host: async seen => {
      const name =
        seen.model === 'mapped' ? 'user.virtfs.system.posix_acl_access' : 'system.posix_acl_access';
      expect(await seen.attribute('d/f', name)).toMatch(/^02000000/);
    },
  },
  {
    title: 'a file capability is effective, and a write takes it away',
    script: `
      as alice touch prog; cat /usr/bin/cat > prog; chmod 755 prog
      umask 077; echo secret > /tmp/secret; fails 'Permission denied' as bob ./prog /tmp/secret
      setcap cap_dac_read_search+ep prog; same "$(getcap prog)" 'prog cap_dac_read_search=ep'
      same "$(as bob ./prog /tmp/secret)" secret
      fails 'not permitted' as alice setcap cap_chown+ep prog
      as alice bash -c 'echo >> prog'; same "$(getcap prog)" ''
      setcap cap_dac_read_search+ep prog; chown 1001 prog; same "$(getcap prog)" ''`,
  },
];
