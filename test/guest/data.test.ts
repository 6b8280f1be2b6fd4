import { oneBench, testChecks } from './bench.ts';
import { cell, local } from './check.ts';
import { data } from './checks/data.ts';
import { HostBench } from './host-bench.ts';
import { overTcp } from './way.ts';

testChecks(
  'file content and whole programs',
  [
    local,
    cell('mapped', 'none'),
    cell('mapped', 'mmap'),
    cell('passthrough', 'none'),
    cell('passthrough', 'loose'),
  ],
  data,
  oneBench(HostBench.over(overTcp)),
);
