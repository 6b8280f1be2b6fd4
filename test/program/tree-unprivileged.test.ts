import { mapped } from '#security/mapped.ts';
import { none } from '#security/none.ts';
import { serverOwner } from '#security/owner.ts';
import { describeShortage } from '../support/shortage-suite.ts';
import { describeTree } from '../support/tree-suite.ts';

// This file's process gives up its privileges for good; every file of tests has a process of its own.
process.setgroups!([]);
process.setgid!(65_534);
process.setuid!(65_534);

describeTree('mapped without any privilege', () => mapped({ fmode: 0o600, dmode: 0o700 }, () => {}), false);
describeShortage(
  'mapped without any privilege',
  () => mapped({ fmode: 0o600, dmode: 0o700 }, () => {}),
  false,
);

const asUser = () => none({ owner: serverOwner(), chown: 'ignore', clearsSetIds: false });
describeTree('none without any privilege', asUser, false);
describeShortage('none without any privilege', asUser, false);
