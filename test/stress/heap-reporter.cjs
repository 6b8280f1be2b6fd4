// Loaded into the server by NODE_OPTIONS=--require: on SIGUSR2 it collects garbage and writes what is left into the file
// $NINEPD_HEAP_REPORT, which is open since the start.
const { openSync, writeSync } = require('node:fs');
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');

const path = process.env.NINEPD_HEAP_REPORT;
if (path !== undefined) {
  setFlagsFromString('--expose_gc');
  const collect = runInNewContext('gc');
  const fd = openSync(path, 'w');
  let number = 0;
  process.on('SIGUSR2', () => {
    collect();
    const { heapUsed: used, external } = process.memoryUsage();
    number++;
    writeSync(fd, JSON.stringify({ number, used, external }).padEnd(100), 0);
  });
}
