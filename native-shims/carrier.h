#ifndef CARRIER_H
#define CARRIER_H

#include "call.h"

/*
 * Makes the call before it returns, as `perform` does, and leaves this thread with the server's credentials. With `groups` the call
 * is made on another thread, which keeps them.
 */
int64_t carry(const struct control *control, struct group_list *groups, const struct iovec *segment, int segment_count,
              uint32_t *took);

#endif
