import { cell, local } from './check.ts';
import { names } from './checks/names.ts';
import { sharedFixture, testChecks } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';

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
  sharedFixture(HostFixture.over(overTcp)),
);
