import { expect } from 'vitest';
import { type Check, corner, mapsShared } from '../check.ts';

// File content: positions, sparse files, direct I/O, mappings, many open files, and the programs people really run.

export const data: Check[] = [
  {
    title: 'positions beyond 4 GiB are exact, and holes cost nothing',
    script: `
      truncate -s 6G f; same "$(stat -c %s f)" 6442450944; test $(stat -c %b f) -lt 1000
      printf begin | dd of=f conv=notrunc status=none; printf 'past four GiB' | dd of=f bs=1 seek=5000000001 conv=notrunc status=none
      same "$(dd if=f bs=1 skip=5000000001 count=13 status=none)" 'past four GiB'
      same "$(dd if=f bs=1 skip=5000000000 count=1 status=none | od -An -tx1)" ' 00'; sync f; test $(stat -c %b f) -lt 1000
      printf end >> f; same "$(stat -c %s f) $(tail -c 3 f)" '6442450947 end'; truncate -s 4294967297 f; same "$(stat -c %s f)" 4294967297
      truncate -s 16M g; printf x | dd of=g bs=1 seek=10000000 conv=notrunc status=none; cp --sparse=always g h
      cmp g h; sync h; test $(stat -c %b h) -lt 1000`,
    host: async seen => {
      expect(await seen.real('f')).toMatchObject({ size: 4_294_967_297 });
      const { size, blocks } = await seen.real('h');
      expect(size).toBe(16 << 20);
      expect(blocks).toBeLessThan(1000);
    },
  },
  {
    title: 'direct I/O works at any offset, length and address',
    where: cell => cell.model !== 'local',
    script: 'direct f',
  },
  { title: 'direct I/O works at aligned ones', script: 'direct f aligned' },
  {
    title: 'random reads, writes, truncations and reopenings give back what was put in',
    where: cell => cell.cache === 'none',
    timeout: 120_000,
    work: 2000,
    script: 'exercise f 11 $work; cmp f /tmp/oracle-11',
  },
  {
    // All pages stay cached here: docs/guest-caches.md says what Linux 6.12 loses in loose mode where some have left.
    title: 'random reads, writes, shared mappings, truncations and reopenings give back what was put in',
    where: cell => cell.cache === 'loose' || cell.cache === 'local',
    timeout: 120_000,
    work: 3000,
    script: 'exercise f 12 $work mapread mapwrite; cmp f /tmp/oracle-12',
  },
  {
    // Linux 6.12 loses what is stored to a page of which a write has not reached the server (docs/guest-caches.md). That does
    // not happen where fsync comes before the mapping, nor while the pages of one opening stay cached.
    title:
      'random calls and mappings that come after fsync, and random calls and mappings of one opening, give back what was put in',
    where: cell => cell.cache === 'mmap',
    timeout: 120_000,
    work: 2000,
    script: `
      exercise f 13 $work mapread mapwrite flush; cmp f /tmp/oracle-13
      exercise g 14 $work mapread mapwrite stay; cmp g /tmp/oracle-14`,
  },
  { title: 'a shared mapping and the calls agree', where: mapsShared, script: 'mapping f' },
  {
    title: 'many files are open at once, half of them without a name',
    where: corner,
    timeout: 120_000,
    work: 2000,
    script: 'many-open $work; same "$(ls -A)" ""',
  },
  {
    title: 'fio verifies what it has written with several jobs in flight',
    timeout: 120_000,
    script: `
      fio --name=v --rw=randrw --bs=4k-64k --size=6m --numjobs=2 --verify=crc32c --do_verify=1 --ioengine=psync \\
        --fsync=64 --group_reporting --randrepeat=1 --minimal > /tmp/fio.out || { cat /tmp/fio.out >&2; exit 1; }`,
  },
  {
    title: 'SQLite with a rollback journal keeps a database that two processes write',
    timeout: 120_000,
    script: `
      sqlite3 t.db 'create table t(id integer primary key, who text); create index i on t(who);'
      for who in one two; do
        (for n in $(seq 8); do sqlite3 -cmd '.timeout 20000' t.db "begin immediate; insert into t(who) values('$who$n'); insert into t(who) values('$who$n'); commit;"; done) &
      done; wait
      same "$(sqlite3 t.db 'select count(*), count(distinct who) from t; pragma integrity_check;' | paste -sd' ')" '32|16 ok'
      sqlite3 t.db 'begin; delete from t; rollback; vacuum;'; same "$(sqlite3 t.db 'select count(*) from t')" 32; same "$(ls)" t.db`,
  },
  {
    // Two processes over cache=mmap end now and then, in one run of 15 to 200, in an I/O error, SIGBUS, or a fault of the
    // guest's kernel (netfs_write_collection_worker of 6.12.118), whoever the server is (QEMU's own is no different).
    title: 'SQLite with a write-ahead log keeps its database',
    where: cell => cell.cache === 'loose' || cell.cache === 'local',
    timeout: 120_000,
    script: `
      same "$(sqlite3 t.db 'pragma journal_mode=wal; create table t(x); insert into t values(1);')" wal
      (for n in $(seq 8); do sqlite3 -cmd '.timeout 20000' t.db "insert into t values($n);"; done) &
      for n in $(seq 8); do sqlite3 -cmd '.timeout 20000' t.db "insert into t values(100+$n); select count(*) from t;" > /dev/null; done; wait
      same "$(sqlite3 t.db 'select count(*) from t; pragma integrity_check;' | paste -sd' ')" '17 ok'`,
  },
  {
    title: 'tar takes a tree out and in again with owners, modes, times, links, devices, ACLs and attributes',
    script: `
      mkdir -p t/d; echo a > t/f; ln t/f t/h; ln -s f t/l; mkfifo t/p; mknod t/n c 1 3; chmod 4751 t/f; chown 1000:2000 t/f
      chown -h 1001:1001 t/l; chmod 2770 t/d; setfattr -n user.k -v v t/f; setfacl -m u:bob:r t/d; touch -d @12345 t/f t/d
      list() { (cd $1; find . -printf '%P %y %m %U:%G %l %n\\n' | sort; stat -c '%n %Y %t:%T' f d n; getfacl -Rs .; getfattr -dR .); }
      tar --numeric-owner --xattrs --acls -cf a.tar t; mkdir out; tar --xattrs --acls --same-owner -xpf a.tar -C out
      same "$(list out/t)" "$(list t)"; tar --compare -f a.tar -C out
      cp -a t copy; same "$(list copy)" "$(list t)"`,
  },
  {
    title: 'a program is compiled, linked by make and run in place',
    timeout: 120_000,
    script: `
      for i in $(seq 12); do printf '#include "all.h"\\nint f%d(void) { return %d; }\\n' $i $i > f$i.c; echo "int f$i(void);" >> all.h; done
      { echo '#include <stdio.h>'; echo '#include "all.h"'; echo 'int main(void) { printf("%d\\n", 0'; for i in $(seq 12); do echo "+ f$i()"; done; echo '); return 0; }'; } > main.c
      printf 'OBJ = $(patsubst %%.c,%%.o,$(wildcard *.c))\\nprog: $(OBJ)\\n\\ttcc -o $@ $^\\n%%.o: %%.c all.h\\n\\ttcc -c -o $@ $<\\n' > Makefile
      make -j2 > log 2>&1 || { cat log >&2; exit 1; }
      same "$(./prog)" 78; same "$(make)" "make: 'prog' is up to date."; touch f3.c; make | grep -c f3.o > /dev/null`,
  },
  {
    title: 'git clones, commits, checks out and finds every object sound',
    where: corner,
    timeout: 240_000,
    work: 16,
    script: `
      # Neither the user's configuration nor samples of hooks are what is looked at.
      export HOME=$(mktemp -d) GIT_TEMPLATE_DIR= GIT_AUTHOR_DATE='@1700000000 +0000' GIT_COMMITTER_DATE='@1700000000 +0000'
      git config --global user.email a@example.org; git config --global user.name a; git config --global init.defaultBranch main
      git config --global gc.auto 0; git init -q origin; cd origin
      for i in $(seq $((4 + work))); do mkdir -p d$((i % 4)); seq $i 400 > d$((i % 4))/f$i; done; ln -s d0/f4 link; chmod 755 d1/f1; git add .; git commit -qm one
      git checkout -qb side; git mv d2 d9; git commit -qam two; git checkout -q main; test -d d2; cd ..
      git clone -q --no-local origin copy; cd copy; git checkout -q side; test -d d9; same "$(git status --porcelain)" ''
      git merge -q origin/main > /dev/null; git gc -q; git fsck --full --strict; same "$(git rev-parse HEAD)" "$(git -C ../origin rev-parse side)"
      same "$(git ls-tree HEAD d1/f1 link | cut -d' ' -f1 | paste -sd,)" 100755,120000`,
  },
];
