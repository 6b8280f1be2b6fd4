// The load generator: sequences of 9P2000.L requests over one or several connections, a number of them in flight on each,
// as fast as the server answers. Prints one line of JSON; times are in nanoseconds.
//   load --connect URI --steps walk,getattr,clunk --within DIR --name FILE [--depth N] [--connections N] [--seconds S] …
#define _GNU_SOURCE
#include "load.h"
#include <getopt.h>
#include <sys/epoll.h>
#include <unistd.h>

Options options = {
    .aname = "",
    .name = "",
    .within = "",
    .connections = 1,
    .depth = 1,
    .msize = 65536,
    .warmup = 0.1,
    .seconds = 0.5,
};
Tally tally;
uint8_t *payload;

// Latencies, 32 buckets for each power of two: exact to 3 %.
enum { sub_bits = 5, buckets = (65 - sub_bits) << sub_bits };
static uint64_t histogram[buckets];

uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

void fail(const char *text, long number) {
  fprintf(stderr, "load: %s %ld\n", text, number);
  exit(1);
}

void record(uint64_t ns) {
  int shift = ns >> sub_bits ? 63 - __builtin_clzll(ns) - sub_bits : 0;
  histogram[((uint64_t)shift << sub_bits) + (ns >> shift)]++;
}

// The latency that the given share of requests does not exceed.
static uint64_t quantile(double share) {
  uint64_t rank = (uint64_t)(share * (double)tally.requests);
  for (uint64_t bucket = 0, seen = 0; bucket < buckets; bucket++) {
    seen += histogram[bucket];
    if (seen <= rank) continue;
    uint64_t shift = bucket >> (sub_bits + 1) ? (bucket >> sub_bits) - 1 : 0;
    return ((bucket - (shift << sub_bits)) << shift) + ((1ull << shift) >> 1);
  }
  return 0;
}

static uint64_t processor_time(clockid_t clock) {
  struct timespec time;
  if (clock_gettime(clock, &time) != 0) return 0;
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// All threads of the server, those that have ended too: utime and stime of /proc/PID/stat, but in nanoseconds.
static uint64_t server_time(void) {
  uint64_t sum = 0;
  for (int i = 0; i < options.pid_count; i++) {
    clockid_t clock;
    if (clock_getcpuclockid(options.pids[i], &clock) == 0) sum += processor_time(clock);
  }
  return sum;
}

typedef struct {
  uint64_t at, server, own;
} Mark;

static Mark mark(void) {
  return (Mark){now(), server_time(), processor_time(CLOCK_PROCESS_CPUTIME_ID)};
}

static void step_time(uint64_t at, Mark *start, Mark *end) {
  if (at < tally.deadline || tally.stopping) return;
  if (!tally.counting) {
    tally.counting = true;
    *start = mark();
    tally.deadline = start->at + (uint64_t)(options.seconds * 1e9);
    return;
  }
  tally.stopping = true;
  // A listing is counted as a whole: the slot ends with it.
  if (options.steps[0] == step_readdir) return;
  tally.counting = false;
  *end = mark();
}

static void watch(int poll, Connection *one, int how, bool left) {
  struct epoll_event event = {.events = left ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = one};
  need(epoll_ctl(poll, how, one->fd, &event) == 0, "epoll_ctl");
  one->blocked = left;
}

static void run(Connection *connections, Mark *start, Mark *end) {
  int poll = epoll_create1(0);
  for (int i = 0; i < options.connections; i++) {
    Connection *one = &connections[i];
    for (int slot = 0; slot < options.depth; slot++) enqueue(one, &one->slots[slot]);
    tally.running += options.depth;
    watch(poll, one, EPOLL_CTL_ADD, !flush(one, now()));
  }
  while (tally.running > 0) {
    struct epoll_event events[64];
    int ready = epoll_wait(poll, events, 64, -1);
    for (int i = 0; i < ready; i++) {
      Connection *one = events[i].data.ptr;
      receive(one);
      if (options.pause) usleep(options.pause);
      uint64_t at = now();
      if (!options.count) step_time(at, start, end);
      bool left = !flush(one, at);
      if (left != one->blocked) watch(poll, one, EPOLL_CTL_MOD, left);
    }
  }
  if (tally.counting) *end = mark();
}

static void print(const Mark *start, const Mark *end) {
  printf("{\"requests\":%lu,\"ns\":%lu,\"bytes\":%lu,\"entries\":%lu,", tally.requests, end->at - start->at,
         tally.bytes, tally.entries);
  printf("\"p50\":%lu,\"p99\":%lu,\"serverNs\":%lu,\"loadNs\":%lu,\"msize\":%u}\n", quantile(0.5), quantile(0.99),
         end->server - start->server, end->own - start->own, options.msize);
}

static const struct option known[] = {
    {"connect", 1, 0, 'c'},
    {"aname", 1, 0, 'a'},
    {"name", 1, 0, 'n'},
    {"within", 1, 0, 'w'},
    {"steps", 1, 0, 's'},
    {"open", 1, 0, 'o'},
    {"connections", 1, 0, 'C'},
    {"depth", 1, 0, 'd'},
    {"msize", 1, 0, 'm'},
    {"size", 1, 0, 'S'},
    {"file-bytes", 1, 0, 'f'},
    {"uid", 1, 0, 'u'},
    {"warmup", 1, 0, 'W'},
    {"seconds", 1, 0, 't'},
    {"count", 1, 0, 'N'},
    {"pid", 1, 0, 'p'},
    {"pause", 1, 0, 'P'},
    {"stay", 0, 0, 'y'},
    {0},
};

static bool take_option(int option, char *value) {
  switch (option) {
    case 'c': options.address = value; return true;
    case 'a': options.aname = value; return true;
    case 'n': options.name = value; return true;
    case 'w': options.within = value; return true;
    case 's': return steps_from(value);
    case 'o': options.open = *value == 'w' ? open_to_write : open_to_read; return true;
    case 'C': options.connections = atoi(value); return options.connections > 0;
    case 'd': options.depth = atoi(value); return options.depth > 0 && options.depth <= 1024;
    case 'm': options.msize = (uint32_t)atol(value); return options.msize <= 1 << 20;
    case 'S': options.size = (uint32_t)atol(value); return true;
    case 'f': options.file_bytes = (uint64_t)atoll(value); return true;
    case 'u': options.uid = (uint32_t)atol(value); return true;
    case 'W': options.warmup = atof(value); return true;
    case 't': options.seconds = atof(value); return true;
    case 'y': options.stay = true; return true;
    case 'P': options.pause = (unsigned)atoi(value); return true;
    case 'N': options.count = (uint64_t)atoll(value); return true;
    case 'p':
      if (options.pid_count == pids_max) return false;
      options.pids[options.pid_count++] = atoi(value);
      return true;
    default: return false;
  }
}

int main(int count, char **args) {
  int option;
  while ((option = getopt_long(count, args, "", known, NULL)) != -1)
    if (!take_option(option, optarg)) return 2;
  if (!options.address || options.step_count == 0) return 2;
  uint32_t wanted = options.size;
  Connection *connections = calloc((size_t)options.connections, sizeof(Connection));
  for (int i = 0; i < options.connections; i++) open_connection(&connections[i]);
  if (wanted == 0) options.size = options.msize - io_header_bytes;
  payload = calloc(1, options.size);
  Mark start = {0}, end = {0};
  tally.deadline = now() + (uint64_t)(options.warmup * 1e9);
  if (options.count) {
    tally.counting = true;
    start = mark();
  }
  run(connections, &start, &end);
  print(&start, &end);
  fflush(stdout);
  // Holds its fids until its standard input ends.
  while (options.stay && getchar() != EOF) continue;
  return 0;
}
