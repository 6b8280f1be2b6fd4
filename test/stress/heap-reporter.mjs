// Loaded into the server by NODE_OPTIONS=--import: on SIGUSR2 it collects garbage and says on standard error what is left.
import { writeSync } from 'node:fs';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  setFlagsFromString('--expose_gc');
  const collect = runInNewContext('gc');
  process.on('SIGUSR2', () => {
    collect();
    // Not process.memoryUsage(), which reads /proc, where the sandbox does not let it.
    const { used_heap_size: used, external_memory: external } = getHeapStatistics();
    writeSync(2, `heap: ${JSON.stringify({ used, external })}\n`);
  });
}
