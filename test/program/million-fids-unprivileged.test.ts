import { describeMillionFids } from '../support/million-fids.ts';

// This file's process gives up its privileges for good; every file of tests has a process of its own.
process.setgroups!([]);
process.setgid!(65_534);
process.setuid!(65_534);

describeMillionFids('without any privilege', 'mapped');
