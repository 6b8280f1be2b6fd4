import { sharedFixture } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { testCoherence } from './suites/coherence.ts';

testCoherence('passthrough', sharedFixture(HostFixture.over(overTcp)));
