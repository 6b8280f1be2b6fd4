// 9P2000.L for the load generator and the C loop (include/net/9p/9p.h): little-endian fields and constants.
#ifndef WIRE_H
#define WIRE_H

#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  Rlerror = 7,
  Tlopen = 12,
  Tlcreate = 14,
  Tgetattr = 24,
  Treaddir = 40,
  Tversion = 100,
  Tattach = 104,
  Twalk = 110,
  Tread = 116,
  Twrite = 118,
  Tclunk = 120,
  Tremove = 122,
};

enum {
  head_bytes = 7,
  qid_bytes = 13,
  data_head_bytes = head_bytes + 4, // Rread and Rreaddir before their data
  write_head_bytes = head_bytes + 16,
  io_header_bytes = 24, // P9_IOHDRSZ: what Linux leaves of msize for the head of a read or write
};

static inline uint16_t get16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return le16toh(value);
}

static inline uint32_t get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return le32toh(value);
}

static inline uint64_t get64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return le64toh(value);
}

// Each writes a field and returns the position after it.
static inline uint8_t *put8(uint8_t *at, uint8_t value) {
  *at = value;
  return at + 1;
}

static inline uint8_t *put16(uint8_t *at, uint16_t value) {
  value = htole16(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

static inline uint8_t *put32(uint8_t *at, uint32_t value) {
  value = htole32(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

static inline uint8_t *put64(uint8_t *at, uint64_t value) {
  value = htole64(value);
  memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

static inline uint8_t *put_str(uint8_t *at, const char *text) {
  size_t length = strlen(text);
  at = put16(at, (uint16_t)length);
  memcpy(at, text, length);
  return at + length;
}

// The head of a message; its size[4] is filled in by `finish`.
static inline uint8_t *begin(uint8_t *message, uint8_t type, uint16_t tag) {
  return put16(put8(message + 4, type), tag);
}

// `beside` is the size of data sent from elsewhere. Returns the bytes written.
static inline size_t finish(uint8_t *message, const uint8_t *end, size_t beside) {
  size_t bytes = (size_t)(end - message);
  put32(message, (uint32_t)(bytes + beside));
  return bytes;
}

static inline void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

#endif
