import { describeMillionFids } from '../support/million-fids.ts';

describeMillionFids('with the privilege for file handles', 'passthrough');
