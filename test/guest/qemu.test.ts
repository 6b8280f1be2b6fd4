import { oneBench } from './bench.ts';
import { HostBench } from './host-bench.ts';
import { testQemuTrees } from './suites/qemu.ts';
import { overTcp } from './way.ts';

testQemuTrees(oneBench(HostBench.over(overTcp)));
