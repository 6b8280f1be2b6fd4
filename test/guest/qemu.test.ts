import { sharedFixture } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { testQemuTrees } from './suites/qemu.ts';

const make = sharedFixture(HostFixture.over(overTcp));

testQemuTrees(make, 'mapped');
testQemuTrees(make, 'mapped-file');
