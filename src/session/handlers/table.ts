import { attributes } from './attr.ts';
import type { Handlers } from './handler.ts';
import { files } from './io.ts';
import { locks } from './lock.ts';
import { namespace } from './namespace.ts';
import { opening } from './open.ts';
import { directories } from './readdir.ts';
import { sessions } from './session.ts';
import { walking } from './walk.ts';
import { xattrs } from './xattr.ts';

/** The handler of each message; the type requires all of them. */
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
