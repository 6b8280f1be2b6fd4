import { testQemuTrees } from './suites/qemu.ts';
import { overTcp } from './way.ts';

testQemuTrees(overTcp);
