import { oneBench } from './bench.ts';
import { HostBench } from './host-bench.ts';
import { testCoherence } from './suites/coherence.ts';
import { overTcp } from './way.ts';

testCoherence('passthrough', oneBench(HostBench.over(overTcp)));
