import { fuzz as codec } from './targets/codec.ts';
import { fuzz as fastPath } from './targets/fast-path.ts';
import { fuzz as framer } from './targets/framer.ts';
import { fuzz as mapped } from './targets/mapped.ts';
import { fuzz as options } from './targets/options.ts';
import { fuzz as passthrough } from './targets/passthrough.ts';
import { fuzz as racing } from './targets/racing.ts';
import { fuzz as record } from './targets/record.ts';
import { fuzz as session } from './targets/session.ts';
import { fuzz as vhostMonitor } from './targets/vhost-monitor.ts';
import { fuzz as vhostRing } from './targets/vhost-ring.ts';

/**
 * The fuzz targets: functions of an input that throw on a failure. A target's file in `targets` has its name; seeds and found
 * inputs are in the folder of that name in `corpus`.
 */
export const targets: Readonly<Record<string, (data: Buffer) => void | Promise<void>>> = {
  codec,
  framer,
  'fast-path': fastPath,
  options,
  session,
  racing,
  mapped,
  passthrough,
  record,
  'vhost-ring': vhostRing,
  'vhost-monitor': vhostMonitor,
};
