import { cell, local } from './check.ts';
import { ownership } from './checks/ownership.ts';
import { sharedFixture, testChecks } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';

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
  sharedFixture(HostFixture.over(overTcp)),
);
