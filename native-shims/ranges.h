#ifndef RANGES_H
#define RANGES_H

#include "call.h"

#include <stdbool.h>

/*
 * Whether a call that the host has refused to the caller is for the guest's kernel to judge: all objects that decide about it lie in
 * the caller's ranges. Leaves the thread with the server's credentials if it has to look at them.
 */
bool in_ranges(const struct creds *caller, const struct row *row, const struct call *call);

#endif
