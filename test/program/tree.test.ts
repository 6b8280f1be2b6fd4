import { mapped } from '#security/mapped.ts';
import { mappedFile } from '#security/mapped-file.ts';
import { none } from '#security/none.ts';
import { serverOwner } from '#security/owner.ts';
import { passthrough } from '#security/passthrough.ts';
import { describeShortage } from '../support/shortage-suite.ts';
import { describeTree } from '../support/tree-suite.ts';

const asRoot = () => none({ owner: serverOwner(), chown: 'ignore', clearsSetIds: true });

describeTree('mapped', () => mapped({ fmode: 0o600, dmode: 0o700 }, () => {}), true);
describeTree('mapped-file', () => mappedFile({ fmode: 0o600, dmode: 0o700 }, () => {}), true);
describeTree('passthrough', () => passthrough(() => undefined), true);
describeShortage('mapped', () => mapped({ fmode: 0o600, dmode: 0o700 }, () => {}), true);
describeShortage('mapped-file', () => mappedFile({ fmode: 0o600, dmode: 0o700 }, () => {}), true);
describeShortage('passthrough', () => passthrough(() => undefined), true);
describeTree('none as root', asRoot, true);
describeShortage('none as root', asRoot, true);
