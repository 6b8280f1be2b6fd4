import { readdirSync } from 'node:fs';

/** The names in a directory of the host, sorted, without the record files of `mapped-file`. */
export const namesIn = (path: string) =>
  readdirSync(path)
    .filter(name => !name.startsWith('.virtfs_metadata'))
    .sort();
