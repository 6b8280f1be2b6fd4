import { sharedFixture } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { testLocks } from './suites/locks.ts';

// With two processors the guest sends lock requests concurrently.
const make = sharedFixture(HostFixture.over(overTcp, { cpus: 2 }));

testLocks('mapped', make);
testLocks('passthrough', make);
