// The request of each step of a sequence, and the check of its reply.
#define _GNU_SOURCE
#include "load.h"
#include <errno.h>

static const char *const step_names[step_kinds] = {
    "walk", "absent", "clone", "lopen", "getattr", "read", "write", "readdir", "lcreate", "clunk", "remove", "hold",
};

static const uint8_t types[step_kinds] = {
    Twalk, Twalk, Twalk, Tlopen, Tgetattr, Tread, Twrite, Treaddir, Tlcreate, Tclunk, Tremove, Twalk,
};

enum { root_fid, within_fid, first_fid };

bool steps_from(char *list) {
  for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
    int kind = 0;
    while (kind < step_kinds && strcmp(word, step_names[kind]) != 0) kind++;
    if (kind == step_kinds || options.step_count == steps_max) return false;
    options.steps[options.step_count++] = (Step)kind;
  }
  return options.step_count > 0;
}

static Step step_of(const Slot *slot) {
  return options.steps[slot->step];
}

size_t data_beside(const Slot *slot) {
  return slot->head[4] == Twrite ? options.size : 0;
}

static uint8_t *put_walk(uint8_t *at, uint32_t from, uint32_t to, const char *name) {
  at = put16(put32(put32(at, from), to), *name ? 1 : 0);
  return *name ? put_str(at, name) : at;
}

static void made_name(const Slot *slot, char *name) {
  if (options.count) sprintf(name, "f%07llu", (unsigned long long)slot->number);
  else sprintf(name, "made%u", slot->prepared);
}

static uint8_t *put_fields(Slot *slot, uint8_t *at) {
  char name[32];
  bool walked = options.steps[0] == step_walk;
  switch (step_of(slot)) {
    case step_walk: return put_walk(at, within_fid, slot->fresh, options.name);
    case step_absent: return put_walk(at, within_fid, slot->fresh, "no-such-name");
    case step_hold:
      // A fid that is kept, of one file or each of another.
      made_name(slot, name);
      return put_walk(at, within_fid, first_fid + 2 * (uint32_t)options.depth + (uint32_t)slot->number,
                      *options.name ? options.name : name);
    case step_clone: return put_walk(at, within_fid, slot->fresh, "");
    case step_lopen: return put32(put32(at, slot->fresh), 0);
    case step_getattr: return put64(put32(at, walked ? slot->fresh : slot->prepared), 0x7ff);
    case step_read:
    case step_write:
      at = put32(put64(put32(at, slot->prepared), slot->offset), options.size);
      slot->offset += options.size;
      if (slot->offset + options.size > options.file_bytes) slot->offset = 0;
      return at;
    case step_readdir: return put32(put64(put32(at, slot->prepared), slot->offset), options.size);
    case step_lcreate:
      made_name(slot, name);
      return put32(put32(put32(put_str(put32(at, slot->fresh), name), 2), 0644), 0);
    default: return put32(at, slot->fresh);
  }
}

void write_step(Slot *slot) {
  if (slot->step == 0) slot->number = tally.started++;
  uint8_t *end = put_fields(slot, begin(slot->head, types[step_of(slot)], slot->tag));
  slot->head_used = finish(slot->head, end, data_beside(slot));
}

// Counts the entries and continues after the last; starts again at the end of the directory.
static bool take_entries(Slot *slot, const uint8_t *frame) {
  uint32_t bytes = get32(frame + head_bytes);
  const uint8_t *entry = frame + data_head_bytes;
  const uint8_t *end = entry + bytes;
  uint64_t entries = 0;
  for (; entry < end; entries++) {
    slot->offset = get64(entry + qid_bytes);
    entry += qid_bytes + 8 + 1 + 2 + get16(entry + qid_bytes + 9);
  }
  if (bytes == 0) slot->offset = 0;
  if (tally.counting) tally.entries += entries;
  return bytes == 0;
}

// Whether the slot's step is complete.
static bool check_reply(Slot *slot, const uint8_t *frame) {
  Step step = step_of(slot);
  uint8_t type = frame[4];
  if (type == Rlerror) {
    uint32_t error = get32(frame + head_bytes);
    if (step == step_absent && error == ENOENT) return true;
    fail("the server answered with errno", error);
  }
  if (type != types[step] + 1 || step == step_absent) fail("no such reply was asked for: type", type);
  if (step == step_readdir) return take_entries(slot, frame);
  if (step == step_read || step == step_write) {
    uint32_t count = get32(frame + head_bytes);
    if (count != options.size) fail("a short read or write, of bytes", count);
    if (tally.counting) tally.bytes += count;
  }
  return true;
}

bool take_reply(Slot *slot, const uint8_t *frame) {
  if (tally.counting) tally.requests++;
  bool over = check_reply(slot, frame);
  if (over) slot->step = (slot->step + 1) % options.step_count;
  // A directory is always read to its end, so that entries per second hold for all of it.
  bool between = over && slot->step == 0;
  if (between && options.count && tally.started >= options.count) return false;
  return !(between && tally.stopping);
}

// Prepares the connection's fids: the root, where new files go, and one for each slot.
void converse(Connection *to) {
  Slot hello = {.tag = 0xffff};
  uint8_t *at = begin(hello.head, Tversion, hello.tag);
  hello.head_used = finish(hello.head, put_str(put32(at, options.msize), "9P2000.L"), 0);
  call(to, &hello, Tversion);
  uint32_t agreed = get32(to->in + head_bytes);
  options.msize = agreed;
  at = put_str(put32(put32(begin(hello.head, Tattach, 0), root_fid), 0xffffffff), "bench");
  hello.head_used = finish(hello.head, put32(put_str(at, options.aname), options.uid), 0);
  call(to, &hello, Tattach);
  at = put_walk(begin(hello.head, Twalk, 0), root_fid, within_fid, options.within);
  hello.head_used = finish(hello.head, at, 0);
  call(to, &hello, Twalk);
  for (int i = 0; i < options.depth; i++) {
    Slot *slot = &to->slots[i];
    slot->tag = (uint16_t)i;
    slot->prepared = first_fid + (uint32_t)i;
    slot->fresh = slot->prepared + (uint32_t)options.depth;
    at = put_walk(begin(hello.head, Twalk, 0), within_fid, slot->prepared, options.name);
    hello.head_used = finish(hello.head, at, 0);
    call(to, &hello, Twalk);
    if (options.open == open_nothing) continue;
    at = put32(put32(begin(hello.head, Tlopen, 0), slot->prepared), options.open == open_to_write ? 2 : 0);
    hello.head_used = finish(hello.head, at, 0);
    call(to, &hello, Tlopen);
  }
}
