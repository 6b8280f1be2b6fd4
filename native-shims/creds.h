#ifndef CREDS_H
#define CREDS_H

#include "call.h"

/* Gives this thread the credentials, unless it has them. 0, or -EPERM with the thread back at the server's. */
int creds_assume(const struct creds *wanted);

/* Brings this thread back to the server's credentials. It does not return when that fails. */
void creds_restore(void);

#endif
