import { testChecks } from './bench.ts';
import { cell } from './check.ts';
import { ownership } from './checks/ownership.ts';

testChecks(
  'owners and permission',
  [
    cell('mapped', 'none'),
    cell('mapped', 'loose'),
    cell('passthrough', 'none'),
    cell('passthrough', 'loose'),
  ],
  ownership,
);
