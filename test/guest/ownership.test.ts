import { oneBench, testChecks } from './bench.ts';
import { cell, local } from './check.ts';
import { ownership } from './checks/ownership.ts';
import { HostBench } from './host-bench.ts';
import { overTcp } from './way.ts';

testChecks(
  'owners and permission',
  [
    local,
    cell('mapped', 'none'),
    cell('mapped', 'loose'),
    cell('passthrough', 'none'),
    cell('passthrough', 'loose'),
  ],
  ownership,
  oneBench(HostBench.over(overTcp)),
);
