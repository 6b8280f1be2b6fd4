import { oneBench, testChecks } from './bench.ts';
import { cell, local } from './check.ts';
import { names } from './checks/names.ts';
import { HostBench } from './host-bench.ts';
import { overTcp } from './way.ts';

testChecks(
  'names and objects',
  [
    local,
    cell('mapped', 'none'),
    cell('mapped', 'mmap'),
    cell('mapped', 'loose'),
    cell('passthrough', 'none'),
    cell('passthrough', 'loose'),
  ],
  names,
  oneBench(HostBench.over(overTcp)),
);
