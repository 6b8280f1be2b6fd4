import { HostBench } from './host-bench.ts';
import { testLocks } from './suites/locks.ts';
import { overTcp } from './way.ts';

testLocks('mapped', HostBench.over(overTcp));
testLocks('passthrough', HostBench.over(overTcp));
