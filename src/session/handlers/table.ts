import { attributes } from './attributes.ts';
import { directories } from './directories.ts';
import { files } from './files.ts';
import type { Handlers } from './handler.ts';
import { locks } from './locks.ts';
import { namespace } from './namespace.ts';
import { opening } from './opening.ts';
import { sessions } from './sessions.ts';
import { walking } from './walking.ts';
import { xattrs } from './xattrs.ts';

/** A message without a handler does not compile. */
export const handlers: Handlers = {
  ...sessions,
  ...walking,
  ...attributes,
  ...opening,
  ...files,
  ...directories,
  ...namespace,
  ...xattrs,
  ...locks,
};
