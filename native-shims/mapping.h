#ifndef MAPPING_H
#define MAPPING_H

/* The address of a mapping of `map`, or NULL. */
char *mapping_start(int index);

/* munmap(2), once nothing can access it. */
void mapping_end(int index);

#endif
