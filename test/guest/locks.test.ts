import { oneBench } from './bench.ts';
import { HostBench } from './host-bench.ts';
import { testLocks } from './suites/locks.ts';
import { overTcp } from './way.ts';

// On two processors the guest asks for locks at the same time.
const make = oneBench(HostBench.over(overTcp, { cpus: 2 }));

testLocks('mapped', make);
testLocks('passthrough', make);
