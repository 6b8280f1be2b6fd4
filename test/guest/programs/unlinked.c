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
  CHECK(fstat(fd, &st));
  return st;
}

static int new_file(const char *name, const char *content) {
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
  if (fd < 0) fail("create %s", name);
  CHECK_TRUE(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
  return fd;
}

static void data_and_attributes(void) {
  char buffer[16] = "";
  int fd = new_file("gone", "hello");
  CHECK(unlink("gone"));
  CHECK_TRUE(stat_of(fd).st_nlink == 0);
  CHECK_TRUE(stat_of(fd).st_size == 5);
  CHECK_TRUE(pread(fd, buffer, sizeof buffer, 0) == 5 && memcmp(buffer, "hello", 5) == 0);
  CHECK_TRUE(pwrite(fd, "HELLO, world", 12, 0) == 12);
  CHECK_TRUE(stat_of(fd).st_size == 12);
  CHECK(ftruncate(fd, 3));
  CHECK_TRUE(stat_of(fd).st_size == 3);
  CHECK(ftruncate(fd, 100));
  CHECK_TRUE(pread(fd, buffer, 4, 2) == 4 && memcmp(buffer, "L\0\0\0", 4) == 0);
  CHECK(fchmod(fd, 0640));
  CHECK_TRUE((stat_of(fd).st_mode & 07777) == 0640);
  CHECK(fchown(fd, 1000, 1001));
  CHECK_TRUE(stat_of(fd).st_uid == 1000 && stat_of(fd).st_gid == 1001);
  struct timespec times[2] = {{1000000000, 0}, {1100000000, 0}};
  CHECK(futimens(fd, times));
  CHECK_TRUE(stat_of(fd).st_mtime == 1100000000 && stat_of(fd).st_atime == 1000000000);
  CHECK(fsync(fd));
  CHECK(fdatasync(fd));
  struct statvfs vfs;
  CHECK(fstatvfs(fd, &vfs));
  CHECK(close(fd));
  CHECK_ERRNO(open("gone", O_RDONLY), ENOENT);
}

static void extended_attributes(void) {
  char buffer[64] = "";
  int fd = new_file("gone", "x");
  CHECK(fsetxattr(fd, "user.before", "1", 1, 0));
  CHECK(unlink("gone"));
  CHECK(fsetxattr(fd, "user.after", "22", 2, XATTR_CREATE));
  CHECK_ERRNO(fsetxattr(fd, "user.after", "22", 2, XATTR_CREATE), EEXIST);
  CHECK_TRUE(fgetxattr(fd, "user.before", buffer, sizeof buffer) == 1);
  CHECK_TRUE(fgetxattr(fd, "user.after", buffer, sizeof buffer) == 2);
  CHECK(fremovexattr(fd, "user.before"));
  CHECK_ERRNO(fgetxattr(fd, "user.before", buffer, sizeof buffer), ENODATA);
  ssize_t length = flistxattr(fd, buffer, sizeof buffer);
  CHECK_TRUE(length >= 11 && memmem(buffer, (size_t)length, "user.after", 11) != NULL);
  CHECK(close(fd));
}

static void read_only_descriptor(void) {
  char buffer[8];
  close(new_file("gone", "text"));
  int fd = open("gone", O_RDONLY);
  CHECK(fd);
  CHECK(unlink("gone"));
  CHECK_TRUE(read(fd, buffer, 8) == 4);
  CHECK(fchmod(fd, 0600));
  CHECK(fchown(fd, 1, 2));
  CHECK(fsync(fd));
  CHECK_TRUE(stat_of(fd).st_uid == 1 && stat_of(fd).st_nlink == 0);
  CHECK(close(fd));
}

/* The victim of a rename lives on, and the name is the other file's at once. */
static void replaced(void) {
  char buffer[8] = "";
  int old = new_file("victim", "old");
  int new = new_file("fresh", "new!");
  CHECK(rename("fresh", "victim"));
  CHECK_TRUE(pread(old, buffer, 8, 0) == 3 && memcmp(buffer, "old", 3) == 0);
  CHECK_TRUE(stat_of(old).st_nlink == 0);
  CHECK(fchmod(old, 0600));
  CHECK(ftruncate(old, 1));
  CHECK_TRUE(pwrite(new, "N", 1, 0) == 1);
  int again = open("victim", O_RDONLY);
  CHECK(again);
  CHECK_TRUE(stat_of(again).st_ino == stat_of(new).st_ino && stat_of(again).st_ino != stat_of(old).st_ino);
  CHECK_TRUE(read(again, buffer, 8) == 4 && memcmp(buffer, "New!", 4) == 0);
  close(old);
  close(new);
  close(again);
  CHECK(unlink("victim"));
}

static void second_link(void) {
  int fd = new_file("one", "linked");
  CHECK(link("one", "two"));
  CHECK_TRUE(stat_of(fd).st_nlink == 2);
  CHECK(unlink("one"));
  CHECK_TRUE(stat_of(fd).st_nlink == 1);
  CHECK(ftruncate(fd, 2));
  struct stat st;
  CHECK(stat("two", &st));
  CHECK_TRUE(st.st_size == 2 && st.st_nlink == 1 && st.st_ino == stat_of(fd).st_ino);
  CHECK(unlink("two"));
  CHECK_TRUE(stat_of(fd).st_nlink == 0);
  close(fd);
}

static void reopened(void) {
  char path[64], buffer[8];
  int fd = new_file("gone", "again");
  CHECK(unlink("gone"));
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int again = open(path, O_RDONLY);
  CHECK(again);
  CHECK_TRUE(read(again, buffer, 8) == 5 && memcmp(buffer, "again", 5) == 0);
  int writer = open(path, O_RDWR);
  CHECK(writer);
  CHECK_TRUE(pwrite(writer, "A", 1, 0) == 1);
  CHECK(fsync(writer));
  CHECK_TRUE(pread(fd, buffer, 1, 0) == 1 && buffer[0] == 'A');
  CHECK(truncate(path, 2));
  CHECK_TRUE(stat_of(fd).st_size == 2);
  CHECK(chmod(path, 0400));
  CHECK_TRUE((stat_of(again).st_mode & 0777) == 0400);
  close(writer);
  close(again);
  close(fd);
}

/* An inherited descriptor in another process, after the first has closed its own. */
static void inherited(void) {
  int fd = new_file("gone", "child");
  CHECK(unlink("gone"));
  pid_t pid = fork();
  if (pid == 0) {
    char buffer[8];
    usleep(50000);
    CHECK_TRUE(pread(fd, buffer, 8, 0) == 5);
    CHECK_TRUE(pwrite(fd, "later", 5, 5) == 5);
    CHECK_TRUE(stat_of(fd).st_size == 10);
    exit(0);
  }
  close(fd);
  int status;
  CHECK(waitpid(pid, &status, 0));
  CHECK_TRUE(status == 0);
}

static void directories(void) {
  CHECK(mkdir("dir", 0755));
  int fd = open("dir", O_RDONLY | O_DIRECTORY);
  CHECK(fd);
  CHECK(rmdir("dir"));
  CHECK_TRUE(stat_of(fd).st_nlink == 0 || S_ISDIR(stat_of(fd).st_mode));
  CHECK_ERRNO(openat(fd, "new", O_RDWR | O_CREAT, 0644), ENOENT);
  CHECK_ERRNO(mkdirat(fd, "new", 0755), ENOENT);
  CHECK(fchmod(fd, 0700));
  DIR *stream = fdopendir(fd);
  CHECK_TRUE(stream != NULL);
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
    CHECK_TRUE(strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
  }
  closedir(stream);

  CHECK(mkdir("cwd", 0755));
  pid_t pid = fork();
  if (pid == 0) {
    CHECK(chdir("cwd"));
    CHECK(rmdir("../cwd"));
    /* No stat(".") here: rmdir makes Linux's 9p client give up the directory's fid. */
    CHECK_ERRNO(open("x", O_RDWR | O_CREAT, 0644), ENOENT);
    exit(0);
  }
  int status;
  CHECK(waitpid(pid, &status, 0));
  CHECK_TRUE(status == 0);
}

static void temporary_file(void) {
  char name[] = "tmpXXXXXX";
  char block[4096];
  int fd = mkstemp(name);
  CHECK(fd);
  CHECK(unlink(name));
  memset(block, 'z', sizeof block);
  for (int i = 0; i < 64; i++) CHECK_TRUE(write(fd, block, sizeof block) == (ssize_t)sizeof block);
  CHECK_TRUE(lseek(fd, 0, SEEK_SET) == 0);
  for (int i = 0; i < 64; i++) CHECK_TRUE(read(fd, block, sizeof block) == (ssize_t)sizeof block && block[4095] == 'z');
  CHECK_TRUE(stat_of(fd).st_size == 64 * 4096);
  close(fd);
}

static void mapped_shared(void) {
  int fd = new_file("gone", "0123456789");
  CHECK(ftruncate(fd, 8192));
  char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK_TRUE(map != MAP_FAILED);
  CHECK(unlink("gone"));
  map[0] = 'M';
  map[5000] = 'Z';
  CHECK(msync(map, 8192, MS_SYNC));
  char buffer[1];
  CHECK_TRUE(pread(fd, buffer, 1, 0) == 1 && buffer[0] == 'M');
  CHECK_TRUE(pread(fd, buffer, 1, 5000) == 1 && buffer[0] == 'Z');
  close(fd);
  map[1] = 'L';
  CHECK(munmap(map, 8192));
}

static void mapped_private(void) {
  int fd = new_file("gone", "private text");
  CHECK(fsync(fd));
  CHECK(unlink("gone"));
  char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK_TRUE(map != MAP_FAILED);
  close(fd);
  CHECK_TRUE(memcmp(map, "private text", 12) == 0);
  map[0] = 'P';
  CHECK_TRUE(map[0] == 'P' && map[12] == 0);
  CHECK(munmap(map, 4096));
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
