import { expect } from 'vitest';
import { type Check, corner, mapsShared } from '../check.ts';

// What is named and how: objects of every type, links, renames, unlinking, odd names, directories, attributes.

const fmtMask = 0o170000;

export const names: Check[] = [
  {
    title: 'devices have their type and number, and the guest’s own null device behind them works',
    script: `
      mknod null c 1 3; mknod loop b 7 200; mknod big b 259 70000; mknod wide c 4095 1048575
      same "$(stat -c '%F %t:%T' null loop big wide | paste -sd,)" \\
        'character special file 1:3,block special file 7:c8,block special file 103:11170,character special file fff:fffff'
      echo x > null; same "$(cat null)" ''
      fails 'not permitted' as alice mknod mine c 1 3
      mv null n2; chmod 600 n2; chown 1000 n2; same "$(what n2)" '600 1000:0'; rm n2; mknod n2 p; rm n2`,
    host: async seen => {
      expect((await seen.owner('big')).mode & fmtMask).toBe(0o060000);
      const rdev = await seen.attribute('big', 'user.virtfs.rdev');
      expect(rdev).toBe(seen.model === 'mapped' ? '7003111100000000' : undefined);
    },
  },
  {
    title: 'a FIFO carries data between two users',
    script: `
      as alice mkfifo -m 666 p; same "$(stat -c %F p)" fifo
      as bob bash -c 'echo through > p' & same "$(as alice cat p)" through; wait`,
    host: async seen => expect(await seen.owner('p')).toMatchObject({ mode: 0o010666 }),
  },
  {
    title: 'a Unix socket can be bound and connected to',
    script: `
      perl -MSocket -e '
        socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die; bind($s, sockaddr_un("s")) or die "bind: $!"; listen($s, 1);
        if (fork() == 0) { socket(my $c, PF_UNIX, SOCK_STREAM, 0); connect($c, sockaddr_un("s")) or die "connect: $!";
          syswrite $c, "hello"; exit 0 }
        accept(my $a, $s) or die; sysread $a, my $got, 10; die "got $got" unless $got eq "hello"; wait; exit $?'
      same "$(stat -c %F s)" socket; rm s`,
  },
  {
    title: 'symlinks hold any target and are never the target',
    script: `
      long=$(printf 'x%.0s' $(seq 4095)); ln -s "$long" long; same "$(readlink long)" "$long"
      ln -s /etc/passwd abs; same "$(head -1 abs)" "$(head -1 /etc/passwd)"
      ln -s nowhere dangling; fails 'No such file' cat dangling; same "$(stat -c '%F %s %a' dangling)" 'symbolic link 7 777'
      ln -s $'\\xff\\xfe\\n' bytes; same "$(readlink -n bytes | od -An -tx1)" ' ff fe 0a'
      mkdir d; ln -s d dl; touch dl/f; test -f d/f; rm dl; test -d d
      ln -s d2 swap; ln -sfn d swap; same "$(readlink swap)" d; mv swap moved; same "$(readlink moved)" d
      ln -s loop loop; fails 'Too many levels' cat loop; ln -sr d/f rel; same "$(readlink rel)" d/f
      touch -h -d '2001-02-03 04:05:06 UTC' dangling; same "$(stat -c %Y dangling)" 981173106`,
    host: async seen => {
      const type = (await seen.real('dangling')).mode & fmtMask;
      expect(type).toBe(seen.model === 'passthrough' ? 0o120000 : 0o100000);
    },
  },
  {
    title: 'hard links are one object under several names',
    script: `
      echo one > a; ln a b; mkdir d; ln b d/c
      same "$(stat -c '%h %i' a b d/c | sort -u | wc -l)" 1; same "$(stat -c %h a)" 3
      echo two >> d/c; same "$(paste -sd, a)" one,two; chmod 600 b; same "$(stat -c %a a)" 600
      rm a; same "$(stat -c %h b) $(paste -sd, b)" '2 one,two'
      ln -s b l; ln -P l l2; same "$(readlink l2) $(stat -c %h l)" 'b 2'
      fails 'hard link not allowed for directory' ln d e; fails 'File exists' ln b d/c
      mkfifo p; ln p q; same "$(stat -c '%F %h' q)" 'fifo 2'; fails 'are the same file' mv b d/c; rm b; same "$(stat -c %h d/c)" 1`,
  },
  {
    title: 'a rename replaces what it may and refuses what it must',
    script: `
      echo a > a; echo b > b; mv a b; same "$(cat b) $(ls)" 'a b'
      mkdir d e full; touch full/x; perl -e 'rename("d","e") or die $!'; same "$(ls | paste -sd,)" b,e,full
      fails 'not empty' perl -e 'rename("e","full") or die "$!\\n"'
      fails 'Is a directory' perl -e 'rename("b","e") or die "$!\\n"'
      fails 'Not a directory' perl -e 'rename("e","b") or die "$!\\n"'
      mkdir full/sub; fails 'Invalid argument' perl -e 'rename("full","full/sub/y") or die "$!\\n"'
      fails 'No such file' perl -e 'rename("none","y") or die "$!\\n"'
      ln b b2; perl -e 'rename("b","b2") or die $!'; same "$(stat -c %h b) $(cat b2)" '2 a'
      mv b full/sub/z; same "$(cat full/sub/z)" a; perl -e 'rename("e","e") or die $!'; test -d e`,
  },
  {
    title: 'what is open or is a working directory survives the rename of a directory above it',
    script: `
      mkdir -p a/b/c; echo text > a/b/c/f; exec 3<a/b/c/f 4>>a/b/c/f; cd a/b/c; mv ../../../a ../../../z
      echo more >&4; same "$(cat <&3 | paste -sd,)" text,more; touch new; cd ../../..
      same "$(ls z/b/c | paste -sd,)" f,new; exec 3<&- 4>&-
      as alice mkdir own; cd own; mv ../own ../renamed; as alice touch inside; cd ..; same "$(ls renamed)" inside`,
  },
  {
    title: 'objects without a name any more work with every cache mode',
    where: cell => !mapsShared(cell) && cell.cache !== 'local',
    script: 'unlinked',
  },
  {
    title: 'objects without a name any more work with every cache mode, shared mappings too',
    where: mapsShared,
    script: 'unlinked mmap',
  },
  {
    title: 'names are bytes: any of them, up to 255, come back as they were given',
    script: `
      perl -e '
        my @names = ("\\xff\\xfe\\x80", "new\\nline", " ", "-rf", "*", "\\\\", "..x", "...", "\\x01\\x7f", "\\"", chr(0xc3).chr(0xa9),
          "q" x 255, ".virtfs_metadat", "a%2fb", "tab\\t");
        for (@names) { open(my $f, ">", $_) or die "$_: $!"; print $f $_; close $f or die }
        opendir(my $d, ".") or die; my %seen = map { $_ => 1 } grep { $_ ne "." && $_ ne ".." } readdir $d;
        for (@names) { delete $seen{$_} or die "lost $_"; open(my $f, "<", $_) or die; local $/; die "content of $_" if <$f> ne $_ }
        die "others: ".join(",", keys %seen) if %seen;
        for (@names) { rename $_, "moved" or die; rename "moved", $_ or die; unlink $_ or die "unlink $_: $!" }'
      fails 'File name too long' touch $(printf 'x%.0s' $(seq 256)); same "$(ls -A)" ''`,
  },
  {
    title: 'a directory is removed only when it is empty, and rm -r empties a tree',
    script: `
      mkdir -p d/e; touch d/e/f; fails 'not empty' rmdir d; fails 'Is a directory' unlink d; fails 'Not a directory' rmdir d/e/f
      fails 'File exists' mkdir d; fails 'No such file' mkdir x/y; fails 'No such file' rmdir x; fails 'Not a directory' touch d/e/f/g
      for i in 1 2 3; do for j in 1 2 3; do mkdir -p t/$i/$j; touch t/$i/$j/{a,b}; ln -s a t/$i/$j/l; done; done
      same "$(find t | wc -l)" 40; rm -r t d; same "$(ls -A)" ''; same "$(stat -c %h .)" 2`,
  },
  {
    title:
      'the entries of a large directory come exactly once while others come and go, and while they are removed',
    where: corner,
    timeout: 200_000,
    work: 10_000,
    prepare:
      'mkdir big; cd big; seq -f "keep%.0f$(printf -- "-%.0s" $(seq 200))" 0 $((work - 1)) | xargs touch --',
    script: 'changing-dir $work',
  },
  {
    title: 'an inode number is the same in a listing and in stat, and no two files share one',
    script: `
      touch f g; mkdir d; ln -s f l; mkfifo p; ln f h
      ls -i1 | while read -r ino name; do same "$(stat -c %i $name)" $ino; done
      same "$(ls -i1 | sed 's/ *\\([0-9]*\\) .*/\\1/' | sort -u | wc -l)" 5; same "$(cd d; ls -di ..)" "$(ls -di .| sed 's/\\.$/../')"
      find . -printf '%y %P\\n' | sort > /tmp/types; same "$(paste -sd, /tmp/types)" 'd ,d d,f f,f g,f h,l l,p p'`,
  },
  {
    title: 'extended attributes are kept, listed, replaced and removed',
    script: `
      touch f; mkdir d; setfattr -n user.a -v one f; setfattr -n user.b -v 0x00ff0a f; setfattr -n user.empty f
      setfattr -n user.d -v dir d; same "$(getfattr -d f d -e hex | grep -v ^# | paste -sd' ')" \\
        'user.a=0x6f6e65 user.b=0x00ff0a user.empty=0x  user.d=0x646972 '
      setfattr -n user.a -v two f; same "$(getfattr --only-values -n user.a f)" two
      setfattr -x user.a f; fails 'No such attribute' getfattr -n user.a f; fails 'No such attribute' setfattr -x user.a f
      big=$(printf 'v%.0s' $(seq 3000)); setfattr -n user.big -v $big f; same "$(getfattr --only-values -n user.big f)" $big
      setfattr -n trusted.t -v 1 f; same "$(getfattr -d -m '^trusted' f | grep -v ^# | paste -sd' ')" 'trusted.t="1" '
      fails 'not permitted' as alice setfattr -n trusted.t -v 2 f; fails 'Permission denied' as alice setfattr -n user.x -v 2 f
      ln -s f l; fails 'not permitted' setfattr -h -n user.x -v 1 l; mv f g; same "$(getfattr --only-values -n user.big g)" $big
      as alice touch h; as alice setfattr -n user.mine -v 1 h; as bob getfattr -n user.mine h > /dev/null`,
    host: async seen => expect(await seen.attribute('g', 'user.b')).toBe('00ff0a'),
  },
  {
    title: 'times are kept by the second where they are given, and move where something happens',
    script: `
      touch f; touch -d '2001-02-03 04:05:06 UTC' f; same "$(stat -c '%X %Y' f)" '981173106 981173106'
      touch -a -d '1999-01-01 UTC' f; same "$(stat -c '%X %Y' f)" '915148800 981173106'
      touch -m -d '@1000' f; same "$(stat -c '%X %Y' f)" '915148800 1000'; cp -p f c; same "$(stat -c %Y c)" 1000
      mkdir d; touch -d @2000 d; touch d/x; test $(stat -c %Y d) -gt 2000; before=$(stat -c %Z f); sleep 1.1; chmod 600 f
      test $(stat -c %Z f) -gt $before; same "$(stat -c %Y f)" 1000; echo x >> f; test $(stat -c %Y f) -gt 1000
      fails 'Permission denied' as bob touch f; chmod 666 f; fails 'not permitted' as bob touch -d @5 f; as bob touch f
      now=$(date +%s); touch f; at=$(stat -c %Y f); test $((at - now)) -le 2 -a $((now - at)) -le 2`,
    host: async seen => expect(await seen.real('c')).toMatchObject({ mtime: 1000 }),
  },
  {
    title: 'creation is exclusive where it is asked to be, and truncates or appends where it is asked to',
    script: `
      echo long text > f; fails 'cannot overwrite' bash -c 'set -C; echo x > f'; same "$(cat f)" 'long text'
      echo s > f; same "$(stat -c %s f)" 2; for i in 1 2; do (for j in $(seq 100); do echo line $i $j; done >> f) & done; wait
      same "$(wc -l < f) $(sort -u f | wc -l)" '201 201'; : > f; same "$(stat -c %s f)" 0
      name=$(mktemp ./tmpXXXXXX); same "$(what $name)" '600 0:0'; df . > /dev/null; same "$(stat -f -c %l .)" 255`,
    host: async seen => expect((await seen.sh('ls -A')).split('\n').length).toBe(2),
  },
];
