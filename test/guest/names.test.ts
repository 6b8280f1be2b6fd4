import { testChecks } from './bench.ts';
import { cell } from './check.ts';
import { names } from './checks/names.ts';

testChecks(
  'names and objects',
  [
    cell('mapped', 'none'),
    cell('mapped', 'mmap'),
    cell('mapped', 'loose'),
    cell('passthrough', 'none'),
    cell('passthrough', 'loose'),
  ],
  names,
);
