/* One call: the control block that JavaScript has filled, and the segments of memory with its data. */
#ifndef CALL_H
#define CALL_H

#include <stdint.h>
#include <sys/uio.h>

/* A caller with more than GROUPS_MAX groups has them in a list (creds.h). */
enum {
  GROUPS_MAX = 64,
  RANGES_MAX = 32,
  NUMBERS = 8,
  WIDES = 4,
  TEXT_BYTES_MAX = 8704,
  SEGMENTS_MAX = 1024,
  DONE_MAX = 128
};

/* Whether a caller other than root has the capabilities of file access (creds.c): never, always, or in its ranges (ranges.c). */
enum { FILE_CAPS_NONE, FILE_CAPS_ALL, FILE_CAPS_RANGES };

struct id_range {
  uint32_t first, count;
};

/*
 * Credentials of a call. `server` is not 0 for those of the process; the rest is unused then. `group_count` may exceed GROUPS_MAX;
 * the groups then are in a list. `ranges` has `uid_ranges` of users, and from RANGES_MAX on `gid_ranges` of groups.
 */
struct creds {
  uint32_t server, file_caps, uid_ranges, gid_ranges;
  uint32_t uid, gid, group_count;
  uint32_t groups[GROUPS_MAX];
  struct id_range ranges[2 * RANGES_MAX];
};

/*
 * The block that JavaScript fills (src/host/control-block.ts, by the offsets that addon.c exports). A job of the pool has a copy.
 * Opaque 64-bit values are two words in `number`; offsets and lengths are doubles, exact below 2^53.
 * `texts` has the texts one after the other, each with a NUL that is not counted.
 */
struct control {
  uint32_t shim, slot;
  uint32_t pool, queue;
  uint32_t trust_us; /* of hand_off */
  uint32_t text_bytes[2];
  double wide[WIDES];
  int32_t number[NUMBERS];
  struct creds creds;
  char texts[TEXT_BYTES_MAX];
};

struct done {
  uint32_t slot;
  int32_t result;
  uint32_t blocked_ms; /* of `perform` */
};

/* The control block, followed by results of the pool. Both are written on the event loop's thread only. */
struct shared {
  struct control control;
  uint32_t blocked_ms; /* of the last inline call */
  uint32_t done_queue; /* the queue of the jobs in `done` */
  struct done done[DONE_MAX];
};

struct call {
  const int32_t *number;
  const double *wide;
  const char *text[2];
  const uint32_t *text_bytes;
  const struct iovec *segment;
  int segment_count;
};

/* Returns 0 or more, or -errno. */
typedef int64_t shim(const struct call *call);

/*
 * AS_SERVER: has no caller, or needs the server's privileges. MEASURED: may block on a disk. SLOW_QUEUE: blocks for
 * long as a rule, or must not queue behind calls that do.
 */
enum { AS_SERVER = 1, MEASURED = 2, SLOW_QUEUE = 4 };

struct row {
  const char *name;
  shim *run;
  int flags;
};

extern const struct row shims[];
extern const int shim_count;

struct constant {
  const char *name;
  uint32_t value;
};

extern const struct constant constants[];
extern const int constant_count;

/* Bytes of the block that are in use; -EINVAL if there is no such shim or the texts are too long. */
int64_t control_bytes(const struct control *control);

struct group_list;

/*
 * Runs the shim of the block with its credentials, which the thread then keeps. `groups` are those of a caller with more than
 * GROUPS_MAX. EINTR is retried. `blocked_ms` is how long a MEASURED call took if it blocked for more than a tick of the kernel's
 * coarse clock (1 to 10 ms) and another one did so within the last second; otherwise 0.
 */
int64_t perform(const struct control *control, struct group_list *groups, const struct iovec *segment,
                int segment_count, uint32_t *blocked_ms);

#endif
