/*
 * The guest's init and command agent. It speaks over the one virtio-serial port, in frames of
 *   length u32 (of what follows), id u32, kind u8, payload      (little-endian)
 * To the guest:  'R' run: uid u32, gid u32, ngroups u32, ngroups × u32, script (for bash, with errexit and pipefail)
 *                'K' kill: signal u32, to the command's process group
 * To the host:   'H' here, once, when the agent is ready
 *                'O' and 'E' standard output and error, 'X' exit status u32 (128 + signal when killed)
 * A command ends with its shell; later output of background processes is dropped.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { jobs_max = 64, frame_max = 1 << 20, groups_max = 32 };

struct job {
  uint32_t id;
  pid_t pid;
  int out[2]; /* our ends of standard output and error, -1 once closed */
};

static struct job jobs[jobs_max];
static int port;
static unsigned char frame[frame_max];

static void die(const char *what) {
  perror(what);
  reboot(RB_POWER_OFF);
  exit(1);
}

static void write_all(const void *bytes, size_t count) {
  const char *at = bytes;
  while (count > 0) {
    ssize_t wrote = write(port, at, count);
    if (wrote < 0 && errno != EINTR) die("write to the port");
    if (wrote > 0) {
      at += wrote;
      count -= (size_t)wrote;
    }
  }
}

static void send_frame(uint32_t id, char kind, const void *payload, uint32_t count) {
  unsigned char head[9];
  uint32_t length = 5 + count;
  memcpy(head, &length, 4);
  memcpy(head + 4, &id, 4);
  head[8] = (unsigned char)kind;
  write_all(head, sizeof head);
  write_all(payload, count);
}

static uint32_t u32_at(size_t at) {
  uint32_t value;
  memcpy(&value, frame + at, 4);
  return value;
}

static struct job *job_of(uint32_t id) {
  for (int i = 0; i < jobs_max; i++) {
    if (jobs[i].pid != 0 && jobs[i].id == id) return &jobs[i];
  }
  return NULL;
}

/* Sends the content of the pipe, until it is empty or ends. */
static void drain(struct job *job, int stream) {
  static char buffer[65536];
  while (job->out[stream] >= 0) {
    ssize_t got = read(job->out[stream], buffer, sizeof buffer);
    if (got > 0) {
      send_frame(job->id, stream == 0 ? 'O' : 'E', buffer, (uint32_t)got);
    } else if (got < 0 && errno == EAGAIN) {
      return;
    } else if (got == 0 || errno != EINTR) {
      close(job->out[stream]);
      job->out[stream] = -1;
    }
  }
}

static void run_child(const gid_t *groups, size_t ngroups, uid_t uid, gid_t gid, const char *script) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  umask(022);
  if (setgroups(ngroups, groups) != 0 || setgid(gid) != 0 || setuid(uid) != 0) _exit(126);
  if (chdir("/tmp") != 0) _exit(126);
  execl("/usr/bin/bash", "bash", "-euo", "pipefail", "-c", script, (char *)NULL);
  perror("bash");
  _exit(127);
}

static void run(uint32_t id, size_t length) {
  int out[2], err[2];
  struct job *job = NULL;
  uint32_t status = 125;
  for (int i = 0; i < jobs_max && job == NULL; i++) {
    if (jobs[i].pid == 0) job = &jobs[i];
  }
  gid_t groups[groups_max];
  size_t ngroups = u32_at(13);
  if (job == NULL || ngroups > groups_max || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    send_frame(id, 'X', &status, 4);
    return;
  }
  for (size_t i = 0; i < ngroups; i++) groups[i] = u32_at(17 + 4 * i);
  frame[length] = '\0';
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    setsid();
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    run_child(groups, ngroups, u32_at(5), u32_at(9), (char *)frame + 17 + 4 * ngroups);
  }
  close(out[1]);
  close(err[1]);
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  *job = (struct job){.id = id, .pid = pid, .out = {out[0], err[0]}};
}

static void read_exactly(void *bytes, size_t count) {
  char *at = bytes;
  while (count > 0) {
    ssize_t got = read(port, at, count);
    if (got < 0 && errno != EINTR && errno != EAGAIN) die("read from the port");
    if (got == 0) die("the host has closed the port");
    if (got > 0) {
      at += got;
      count -= (size_t)got;
    }
  }
}

static void serve_request(void) {
  uint32_t length;
  read_exactly(&length, 4);
  if (length < 5 || length >= frame_max) die("frame length");
  read_exactly(frame, length);
  uint32_t id = u32_at(0);
  if (frame[4] == 'R') {
    run(id, length);
  } else if (frame[4] == 'K') {
    struct job *job = job_of(id);
    if (job != NULL) kill(-job->pid, (int)u32_at(5));
  }
}

static void reap(void) {
  int wait_status;
  pid_t pid;
  while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
    for (int i = 0; i < jobs_max; i++) {
      struct job *job = &jobs[i];
      if (job->pid != pid) continue;
      for (int stream = 0; stream < 2; stream++) {
        drain(job, stream);
        if (job->out[stream] >= 0) close(job->out[stream]);
      }
      uint32_t status =
          WIFEXITED(wait_status) ? (uint32_t)WEXITSTATUS(wait_status) : 128u + (uint32_t)WTERMSIG(wait_status);
      job->pid = 0;
      send_frame(job->id, 'X', &status, 4);
    }
  }
}

static int open_port(void) {
  char path[300];
  for (int tries = 0; tries < 500; tries++) {
    DIR *dev = opendir("/dev");
    for (struct dirent *entry; dev != NULL && (entry = readdir(dev)) != NULL;) {
      if (strncmp(entry->d_name, "vport", 5) == 0) {
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        closedir(dev);
        return open(path, O_RDWR | O_CLOEXEC);
      }
    }
    if (dev != NULL) closedir(dev);
    usleep(10000);
  }
  return -1;
}

int main(void) {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  int ended = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  port = open_port();
  if (port < 0) die("no virtio-serial port");
  send_frame(0, 'H', "", 0);
  for (;;) {
    struct pollfd polled[2 + 2 * jobs_max] = {{.fd = port, .events = POLLIN}, {.fd = ended, .events = POLLIN}};
    for (int i = 0; i < 2 * jobs_max; i++) {
      const struct job *job = &jobs[i / 2];
      polled[2 + i] = (struct pollfd){.fd = job->pid != 0 ? job->out[i % 2] : -1, .events = POLLIN};
    }
    if (poll(polled, 2 + 2 * jobs_max, -1) < 0 && errno != EINTR) die("poll");
    for (int i = 0; i < 2 * jobs_max; i++) {
      if (polled[2 + i].revents != 0) drain(&jobs[i / 2], i % 2);
    }
    if (polled[1].revents != 0) {
      struct signalfd_siginfo info;
      while (read(ended, &info, sizeof info) > 0) continue;
      reap();
    }
    if (polled[0].revents != 0) serve_request();
  }
}
