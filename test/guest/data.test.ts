import { cell, local } from './check.ts';
import { data } from './checks/data.ts';
import { sharedFixture, testChecks } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';

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
  sharedFixture(HostFixture.over(overTcp)),
);
