import { idMax } from './id-map.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** The owner of `owner=UID:GID`; undefined for other texts. */
export function parseOwner(text: string): Owner | undefined {
  const [, uid, gid] = /^([0-9]{1,10}):([0-9]{1,10})$/.exec(text) ?? [];
  if (uid === undefined || Math.max(Number(uid), Number(gid)) > idMax) return undefined;
  return { uid: Number(uid), gid: Number(gid) };
}

/** The owner of objects that belong to this process. */
export function serverOwner(): Owner {
  return { uid: process.geteuid!(), gid: process.getegid!() };
}
