#ifndef MEMORY_H
#define MEMORY_H

/* Where a mapping of `map` begins, or NULL. */
char *mapping_start(int index);

/* Unmaps it, once nothing can reach it any more. */
void mapping_end(int index);

#endif
