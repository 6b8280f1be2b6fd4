// A zip archive as a tree:
//   npm install ninepd yauzl
//   npx ninepd serve --export ./zip.mjs,source=files.zip
import { buffer } from 'node:stream/consumers';
import { EFBIG, ReadOnlyTree } from 'ninepd/backend';
import yauzl from 'yauzl';

/** A compressed file can only be read from its start, so contents are kept: the last ones used, of this size in all. */
const keptBytesMax = 256 * 1024 * 1024;

class ZipTree extends ReadOnlyTree {
  #zip;
  /** Promises of contents by entry, least recently used first. */
  #contents = new Map();
  #keptBytes = 0;

  constructor(zip, root, options) {
    super(root, options);
    this.#zip = zip;
  }

  list({ entries }) {
    return entries;
  }

  find({ entries }, name) {
    return entries.get(name);
  }

  attributes({ entry }) {
    if (!entry) return {};
    return { size: entry.uncompressedSize, mtime: entry.getLastModDate(), mode: modeOf(entry) };
  }

  async bytes({ entry }, offset, length) {
    const content = await this.#contentOf(entry);
    return content.subarray(offset, offset + length);
  }

  async target({ entry }) {
    return (await this.#contentOf(entry)).toString();
  }

  #contentOf(entry) {
    if (entry.uncompressedSize > keptBytesMax) throw EFBIG;
    const kept = this.#contents.get(entry);
    this.#contents.delete(entry);
    const content = kept ?? this.#zip.openReadStreamPromise(entry).then(buffer);
    this.#contents.set(entry, content);
    if (!kept) {
      this.#keptBytes += entry.uncompressedSize;
      // A failure is not kept. Whoever asked for the content gets it.
      content.catch(() => this.#forget(entry));
    }
    for (const oldest of this.#contents.keys()) {
      if (this.#keptBytes <= keptBytesMax) break;
      this.#forget(oldest);
    }
    return content;
  }

  #forget(entry) {
    if (this.#contents.delete(entry)) this.#keptBytes -= entry.uncompressedSize;
  }

  close() {
    this.#zip.close();
  }
}

/** The upper half is st_mode, if the archive was made on Unix (APPNOTE.TXT 4.4.2, 4.4.15). */
const unixMode = entry => (entry.versionMadeBy >> 8 === 3 ? entry.externalFileAttributes >>> 16 : 0);
const isSymlink = entry => (unixMode(entry) & 0o170000) === 0o120000;
const modeOf = entry => (unixMode(entry) === 0 ? undefined : unixMode(entry) & 0o777);

const newDirectory = () => ({ type: 'directory', entries: new Map() });

export default async function makeTree({ source, warn }) {
  const zip = await yauzl.openPromise(source, { autoClose: false, lazyEntries: true });
  const root = newDirectory();
  for await (const entry of zip.eachEntry()) {
    const names = entry.fileName.split('/');
    const last = names.pop();
    let directory = root;
    // Directories need no entry of their own.
    for (const name of names) {
      if (directory.entries.get(name)?.type !== 'directory') directory.entries.set(name, newDirectory());
      directory = directory.entries.get(name);
    }
    if (last === '') directory.entry = entry;
    else directory.entries.set(last, { type: isSymlink(entry) ? 'symlink' : 'file', entry });
  }
  return new ZipTree(zip, root, { warn });
}
