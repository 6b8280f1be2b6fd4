import { mapped } from '#security/mapped.ts';
import { passthrough } from '#security/passthrough.ts';
import { describeShortage } from '../support/shortage-suite.ts';
import { describeTree } from '../support/tree-suite.ts';

describeTree('mapped', () => mapped({ fmode: 0o600, dmode: 0o700 }, () => {}), true);
describeTree('passthrough', () => passthrough(() => undefined), true);
describeShortage('mapped', () => mapped({ fmode: 0o600, dmode: 0o700 }, () => {}), true);
describeShortage('passthrough', () => passthrough(() => undefined), true);
