/* One call: what the JavaScript side wrote into its control block, and the memory its data lies in. */
#ifndef CALL_H
#define CALL_H

#include <stdint.h>
#include <sys/uio.h>

/* GROUPS_MAX are in the block; those of a caller who has more are in a list (creds.h). */
enum { GROUPS_MAX = 64, NUMBERS = 8, WIDES = 4, TEXT_BYTES_MAX = 8704, SEGMENTS_MAX = 1024, DONE_MAX = 128 };

/* As whom a call runs. `server` is not 0 for the process itself; uid, gid and groups then mean nothing. `group_count` may be more than are here. */
struct creds {
  uint32_t server, uid, gid, group_count;
  uint32_t groups[GROUPS_MAX];
};

/*
 * The block that JavaScript fills (src/host/control-block.ts; the layout is exported to it) and a job of the pool keeps a copy of.
 * 64-bit values that are only carried are two words in `number`; offsets and lengths are doubles, exact below 2^53.
 * The texts lie one behind the other in `texts`, each with a NUL after it that is not counted.
 */
struct control {
  uint32_t shim, slot;
  uint32_t place, queue; /* of the pool */
  uint32_t trust_us;     /* of hand_off */
  uint32_t text_bytes[2];
  double wide[WIDES];
  int32_t number[NUMBERS];
  struct creds creds;
  char texts[TEXT_BYTES_MAX];
};

struct done {
  uint32_t slot;
  int32_t result;
  uint32_t took; /* as of `perform` */
};

/* The control block, and behind it what the pool has finished. Both are written only on the event loop's thread. */
struct shared {
  struct control control;
  uint32_t took;       /* of the last call that was made at once */
  uint32_t done_queue; /* whose jobs those in `done` are */
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
 * AS_SERVER: has no caller, or needs the privilege of the server. MEASURED: may have to wait for a disk. QUEUE_APART: waits
 * for long as a rule, or must not wait behind what does.
 */
enum { AS_SERVER = 1, MEASURED = 2, QUEUE_APART = 4 };

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

/* Bytes of the block that are in use, or -EINVAL for a block that names no shim or has more text than room. */
int64_t control_bytes(const struct control *control);

struct group_list;

/*
 * Runs the shim that the block names, under its credentials; the thread keeps them. `groups` has those of a caller who is in more
 * than GROUPS_MAX. EINTR is retried. `took` is the milliseconds of a MEASURED call that waited longer than a tick of the kernel's
 * clock (1 to 10 ms), unless it is the first in a while to do so; otherwise 0.
 */
int64_t perform(const struct control *control, struct group_list *groups, const struct iovec *segment, int segment_count,
                uint32_t *took);

#endif
