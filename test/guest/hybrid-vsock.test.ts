import { testChecks } from './bench.ts';
import { cell } from './check.ts';
import { data } from './checks/data.ts';
import { names } from './checks/names.ts';
import { ownership } from './checks/ownership.ts';
import { overHybridVsock } from './way.ts';

testChecks(
  'the checks over a hybrid vsock',
  [cell('mapped', 'none')],
  [...ownership, ...names, ...data],
  overHybridVsock,
);
