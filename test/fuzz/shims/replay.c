/* Runs the harness on files, where there is no libFuzzer to do it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int main(int count, char **paths) {
  for (int i = 1; i < count; i++) {
    FILE *file = fopen(paths[i], "rb");
    uint8_t *data = malloc(1 << 20);
    if (!file || !data) return perror(paths[i]), 1;
    size_t bytes = fread(data, 1, 1 << 20, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, bytes);
    free(data);
  }
  return 0;
}
