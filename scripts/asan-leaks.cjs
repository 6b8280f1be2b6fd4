// Makes many calls at once and on the pool, in this thread and in a worker thread that ends meanwhile; test-asan.mjs then
// has the leak detector look at what is left. Plain JavaScript, since a worker thread of Node 20 takes nothing else.
const { Worker, isMainThread, workerData } = require('node:worker_threads');

const path = isMainThread ? process.argv[2] : workerData;
const addon = require(path);
const block = new ArrayBuffer(addon.layout.bytes);
const kept = [];
let left = isMainThread ? 5000 : 300;
const { run, submit } = addon.attach(block, count => {
  left -= count;
});
new Uint32Array(block, addon.layout.shim, 1)[0] = addon.shims.indexOf('stat');
new Uint32Array(block, addon.layout.server, 1)[0] = 1;
for (let i = 0; i < left; i++) {
  kept.push(new Uint8Array(176));
  if (run(kept[i]) !== 0 || submit(kept[i]) !== 0) throw new Error('stat failed');
}

if (isMainThread) {
  const worker = new Worker(__filename, { workerData: path });
  worker.on('exit', () => {
    if (left !== 0) setImmediate(() => {});
  });
} else {
  process.exit(0);
}
