/*
 * unlinked: what Linux allows with an object that has no name any more. Runs in the current directory as root; takes
 * one argument, `mmap`, where shared writable mappings exist.
 */
#define _GNU_SOURCE
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static struct stat stat_of(int fd) {
  struct stat st;
  must(fstat(fd, &st));
  return st;
}

static int new_file(const char *name, const char *content) {
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
  if (fd < 0) fail("create %s", name);
  holds(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
  return fd;
}

static void data_and_attributes(void) {
  char buffer[16] = "";
  int fd = new_file("gone", "hello");
  must(unlink("gone"));
  holds(stat_of(fd).st_nlink == 0);
  holds(stat_of(fd).st_size == 5);
  holds(pread(fd, buffer, sizeof buffer, 0) == 5 && memcmp(buffer, "hello", 5) == 0);
  holds(pwrite(fd, "HELLO, world", 12, 0) == 12);
  holds(stat_of(fd).st_size == 12);
  must(ftruncate(fd, 3));
  holds(stat_of(fd).st_size == 3);
  must(ftruncate(fd, 100));
  holds(pread(fd, buffer, 4, 2) == 4 && memcmp(buffer, "L\0\0\0", 4) == 0);
  must(fchmod(fd, 0640));
  holds((stat_of(fd).st_mode & 07777) == 0640);
  must(fchown(fd, 1000, 1001));
  holds(stat_of(fd).st_uid == 1000 && stat_of(fd).st_gid == 1001);
  struct timespec times[2] = {{1000000000, 0}, {1100000000, 0}};
  must(futimens(fd, times));
  holds(stat_of(fd).st_mtime == 1100000000 && stat_of(fd).st_atime == 1000000000);
  must(fsync(fd));
  must(fdatasync(fd));
  struct statvfs vfs;
  must(fstatvfs(fd, &vfs));
  must(close(fd));
  refused(open("gone", O_RDONLY), ENOENT);
}

static void extended_attributes(void) {
  char buffer[64] = "";
  int fd = new_file("gone", "x");
  must(fsetxattr(fd, "user.before", "1", 1, 0));
  must(unlink("gone"));
  must(fsetxattr(fd, "user.after", "22", 2, XATTR_CREATE));
  refused(fsetxattr(fd, "user.after", "22", 2, XATTR_CREATE), EEXIST);
  holds(fgetxattr(fd, "user.before", buffer, sizeof buffer) == 1);
  holds(fgetxattr(fd, "user.after", buffer, sizeof buffer) == 2);
  must(fremovexattr(fd, "user.before"));
  refused(fgetxattr(fd, "user.before", buffer, sizeof buffer), ENODATA);
  ssize_t length = flistxattr(fd, buffer, sizeof buffer);
  holds(length >= 11 && memmem(buffer, (size_t)length, "user.after", 11) != NULL);
  must(close(fd));
}

static void read_only_descriptor(void) {
  char buffer[8];
  close(new_file("gone", "text"));
  int fd = open("gone", O_RDONLY);
  must(fd);
  must(unlink("gone"));
  holds(read(fd, buffer, 8) == 4);
  must(fchmod(fd, 0600));
  must(fchown(fd, 1, 2));
  must(fsync(fd));
  holds(stat_of(fd).st_uid == 1 && stat_of(fd).st_nlink == 0);
  must(close(fd));
}

/* The victim of a rename lives on, and the name is the other file's at once. */
static void replaced(void) {
  char buffer[8] = "";
  int old = new_file("victim", "old");
  int new = new_file("fresh", "new!");
  must(rename("fresh", "victim"));
  holds(pread(old, buffer, 8, 0) == 3 && memcmp(buffer, "old", 3) == 0);
  holds(stat_of(old).st_nlink == 0);
  must(fchmod(old, 0600));
  must(ftruncate(old, 1));
  holds(pwrite(new, "N", 1, 0) == 1);
  int again = open("victim", O_RDONLY);
  must(again);
  holds(stat_of(again).st_ino == stat_of(new).st_ino && stat_of(again).st_ino != stat_of(old).st_ino);
  holds(read(again, buffer, 8) == 4 && memcmp(buffer, "New!", 4) == 0);
  close(old);
  close(new);
  close(again);
  must(unlink("victim"));
}

static void second_link(void) {
  int fd = new_file("one", "linked");
  must(link("one", "two"));
  holds(stat_of(fd).st_nlink == 2);
  must(unlink("one"));
  holds(stat_of(fd).st_nlink == 1);
  must(ftruncate(fd, 2));
  struct stat st;
  must(stat("two", &st));
  holds(st.st_size == 2 && st.st_nlink == 1 && st.st_ino == stat_of(fd).st_ino);
  must(unlink("two"));
  holds(stat_of(fd).st_nlink == 0);
  close(fd);
}

static void reopened(void) {
  char path[64], buffer[8];
  int fd = new_file("gone", "again");
  must(unlink("gone"));
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int again = open(path, O_RDONLY);
  must(again);
  holds(read(again, buffer, 8) == 5 && memcmp(buffer, "again", 5) == 0);
  int writer = open(path, O_RDWR);
  must(writer);
  holds(pwrite(writer, "A", 1, 0) == 1);
  must(fsync(writer));
  holds(pread(fd, buffer, 1, 0) == 1 && buffer[0] == 'A');
  must(truncate(path, 2));
  holds(stat_of(fd).st_size == 2);
  must(chmod(path, 0400));
  holds((stat_of(again).st_mode & 0777) == 0400);
  close(writer);
  close(again);
  close(fd);
}

/* An inherited descriptor in another process, after the first has closed its own. */
static void inherited(void) {
  int fd = new_file("gone", "child");
  must(unlink("gone"));
  pid_t pid = fork();
  if (pid == 0) {
    char buffer[8];
    usleep(50000);
    holds(pread(fd, buffer, 8, 0) == 5);
    holds(pwrite(fd, "later", 5, 5) == 5);
    holds(stat_of(fd).st_size == 10);
    exit(0);
  }
  close(fd);
  int status;
  must(waitpid(pid, &status, 0));
  holds(status == 0);
}

static void directories(void) {
  must(mkdir("dir", 0755));
  int fd = open("dir", O_RDONLY | O_DIRECTORY);
  must(fd);
  must(rmdir("dir"));
  holds(stat_of(fd).st_nlink == 0 || S_ISDIR(stat_of(fd).st_mode));
  refused(openat(fd, "new", O_RDWR | O_CREAT, 0644), ENOENT);
  refused(mkdirat(fd, "new", 0755), ENOENT);
  must(fchmod(fd, 0700));
  DIR *stream = fdopendir(fd);
  holds(stream != NULL);
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
    holds(strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
  }
  closedir(stream);

  must(mkdir("cwd", 0755));
  pid_t pid = fork();
  if (pid == 0) {
    must(chdir("cwd"));
    must(rmdir("../cwd"));
    /* No stat(".") here: rmdir makes Linux's 9p client give up the directory's fid. */
    refused(open("x", O_RDWR | O_CREAT, 0644), ENOENT);
    exit(0);
  }
  int status;
  must(waitpid(pid, &status, 0));
  holds(status == 0);
}

static void temporary_file(void) {
  char name[] = "tmpXXXXXX";
  char block[4096];
  int fd = mkstemp(name);
  must(fd);
  must(unlink(name));
  memset(block, 'z', sizeof block);
  for (int i = 0; i < 64; i++) holds(write(fd, block, sizeof block) == (ssize_t)sizeof block);
  holds(lseek(fd, 0, SEEK_SET) == 0);
  for (int i = 0; i < 64; i++) holds(read(fd, block, sizeof block) == (ssize_t)sizeof block && block[4095] == 'z');
  holds(stat_of(fd).st_size == 64 * 4096);
  close(fd);
}

static void mapped_shared(void) {
  int fd = new_file("gone", "0123456789");
  must(ftruncate(fd, 8192));
  char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  holds(map != MAP_FAILED);
  must(unlink("gone"));
  map[0] = 'M';
  map[5000] = 'Z';
  must(msync(map, 8192, MS_SYNC));
  char buffer[1];
  holds(pread(fd, buffer, 1, 0) == 1 && buffer[0] == 'M');
  holds(pread(fd, buffer, 1, 5000) == 1 && buffer[0] == 'Z');
  close(fd);
  map[1] = 'L';
  must(munmap(map, 8192));
}

static void mapped_private(void) {
  int fd = new_file("gone", "private text");
  must(fsync(fd));
  must(unlink("gone"));
  char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  holds(map != MAP_FAILED);
  close(fd);
  holds(memcmp(map, "private text", 12) == 0);
  map[0] = 'P';
  holds(map[0] == 'P' && map[12] == 0);
  must(munmap(map, 4096));
}

int main(int argc, char **argv) {
  umask(022);
  data_and_attributes();
  extended_attributes();
  read_only_descriptor();
  replaced();
  second_link();
  reopened();
  inherited();
  directories();
  temporary_file();
  mapped_private();
  if (argc > 1 && strcmp(argv[1], "mmap") == 0) mapped_shared();
  return 0;
}
