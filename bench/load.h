// The load generator: `load.c` has the options and runs it, `steps.c` the requests and the checks of their replies,
// `connection.c` the sockets.
#ifndef LOAD_H
#define LOAD_H

#include "wire.h"
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum { steps_max = 8, head_bytes_max = 320, pids_max = 64 };

typedef enum {
  step_walk,    // the directory to a new fid, by --name
  step_absent,  // the same by a name that is not there, which must be ENOENT
  step_clone,   // the directory to a new fid
  step_lopen,   // the new fid, to read
  step_getattr, // the new fid, or the prepared one
  step_read,    // the prepared fid, --size bytes
  step_write,   // the prepared fid, --size bytes
  step_readdir, // the prepared fid, as much as a message holds
  step_lcreate, // the new fid becomes a new file
  step_clunk,   // the new fid
  step_remove,  // the new fid and its file
  step_hold,    // the directory to a fid that is used for nothing else, by --name or each by the next number
  step_kinds,
} Step;

typedef enum { open_nothing, open_to_read, open_to_write } Open;

typedef struct {
  const char *address; // tcp://127.0.0.1:PORT or unix:///PATH
  const char *aname;
  const char *within; // the directory below the root that all happens in; "" is the root
  const char *name;   // of a file there; "" is the directory
  Step steps[steps_max];
  int step_count;
  Open open; // how the prepared fid is opened
  int connections;
  int depth;           // requests in flight on each connection
  uint32_t msize;      // to ask for; afterwards what was agreed on
  uint32_t size;       // bytes of a read or write; 0 means as much as msize allows
  uint64_t file_bytes; // offsets go round below this
  uint32_t uid;
  double warmup;
  double seconds;
  unsigned pause;     // microseconds between a reply and the next request; for one connection
  uint64_t count;     // sequences to run instead of a time, numbering what is made
  bool stay;          // with all fids, after the result is printed, until standard input ends
  int pids[pids_max]; // whose processor time is told
  int pid_count;
} Options;

// Sends one request at a time, repeating the sequence of steps.
typedef struct {
  uint32_t prepared;
  uint32_t fresh;
  uint16_t tag;
  int step;
  uint64_t offset;
  uint64_t sent;   // when, in ns
  uint64_t number; // of what it makes
  uint8_t head[head_bytes_max];
  size_t head_used;
} Slot;

typedef struct {
  int fd;
  Slot *slots;
  uint8_t *in;
  size_t have;
  uint64_t skip;  // bytes of data still to come that nobody looks at
  Slot **waiting; // slots whose request is not sent whole, as a ring
  int first;
  int waiting_count;
  size_t first_sent; // bytes sent of the first of them
  bool blocked;      // the socket takes no more for now
} Connection;

// Counters of the measurement.
typedef struct {
  uint64_t requests;
  uint64_t bytes;
  uint64_t entries;
  uint64_t started; // sequences
  bool counting;
  bool stopping;     // no new sequence is begun
  uint64_t deadline; // in ns
  int running;       // slots with a request
} Tally;

extern Options options;
extern Tally tally;
extern uint8_t *payload;

uint64_t now(void);
_Noreturn void fail(const char *text, long number);
void record(uint64_t ns);

// steps.c
bool steps_from(char *list);
size_t data_beside(const Slot *slot);
void write_step(Slot *slot);
// Whether there is another step; false ends the slot.
bool take_reply(Slot *slot, const uint8_t *frame);
void converse(Connection *to);

// connection.c
void open_connection(Connection *connection);
void enqueue(Connection *connection, Slot *slot);
// Sends what it can; false when something is left.
bool flush(Connection *connection, uint64_t at);
void receive(Connection *connection);
void call(Connection *connection, Slot *slot, uint8_t type);

#endif
