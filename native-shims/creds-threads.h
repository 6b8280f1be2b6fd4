#ifndef CREDS_THREADS_H
#define CREDS_THREADS_H

#include "call.h"

/*
 * As `perform`, inline: returns with the call made and this thread back at the server's credentials. With `groups` another thread
 * makes the call, and keeps its credentials.
 */
int64_t perform_inline(const struct control *control, struct group_list *groups, const struct iovec *segment,
                       int segment_count, uint32_t *blocked_ms);

#endif
