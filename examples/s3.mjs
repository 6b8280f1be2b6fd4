// A bucket of S3, or of a server that speaks its protocol, as a tree:
//   npm install ninepd aws4fetch
//   export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_REGION=eu-central-1
//   npx ninepd serve --sandbox off --export ./s3.mjs,source=https://s3.eu-central-1.amazonaws.com/BUCKET
import { AwsClient } from 'aws4fetch';
import { EACCES, EIO, ENOENT, ReadOnlyTree } from 'ninepd/backend';

const timeoutMs = 30_000;
/** For how long the attributes of a lookup are still right for the request that follows it. */
const freshMs = 1000;

/** An item is { type, key }, and for files the attributes of the last lookup. A directory's key is empty or ends with a slash. */
class BucketTree extends ReadOnlyTree {
  #bucket;
  #aws;

  constructor(bucket, aws, options) {
    super({ type: 'directory', key: '' }, options);
    this.#bucket = bucket;
    this.#aws = aws;
  }

  async list({ key }) {
    const entries = [];
    let more;
    do {
      const page = await this.#page(key, more);
      const add = (full, item) => entries.push([full.slice(key.length).replace(/\/$/, ''), item]);
      // Of a file and a directory of the same name the file is shown.
      for (const { key: one, ...known } of page.files)
        add(one, { type: 'file', key: one, known, at: Date.now() });
      for (const one of page.directories) add(one, { type: 'directory', key: one });
      more = page.more;
    } while (more !== undefined);
    return entries;
  }

  async find({ key }, name) {
    const file = `${key}${name}`;
    const response = await this.#request(pathOf(file), { method: 'HEAD' }, [404]);
    if (response.status !== 404)
      return { type: 'file', key: file, known: attributesOf(response), at: Date.now() };
    const { directories, files } = await this.#page(`${file}/`, undefined, 1);
    return directories.length + files.length > 0 ? { type: 'directory', key: `${file}/` } : undefined;
  }

  async attributes(item) {
    if (item.type === 'directory') return {};
    if (Date.now() - item.at < freshMs) return item.known;
    item.known = attributesOf(await this.#request(pathOf(item.key), { method: 'HEAD' }));
    item.at = Date.now();
    return item.known;
  }

  async bytes({ key }, offset, length) {
    const headers = { range: `bytes=${offset}-${offset + length - 1}` };
    const response = await this.#request(pathOf(key), { headers }, [416]);
    // Not satisfiable: the offset is at the end.
    return response.status === 416 ? new Uint8Array(0) : new Uint8Array(await response.arrayBuffer());
  }

  /** ListObjectsV2: what is directly below a prefix, 1000 entries at a time. */
  async #page(prefix, more, most = 1000) {
    const query = new URLSearchParams({ 'list-type': '2', delimiter: '/', 'encoding-type': 'url', prefix });
    query.set('max-keys', String(most));
    if (more !== undefined) query.set('continuation-token', more);
    const xml = await (await this.#request(`?${query}`)).text();
    const all = (name, from) =>
      [...from.matchAll(new RegExp(`<${name}>([\\s\\S]*?)</${name}>`, 'g'))].map(found => found[1]);
    const one = (name, from) => all(name, from)[0];
    const keyIn = (name, from) => decodeURIComponent(one(name, from).replaceAll('+', ' '));
    return {
      directories: all('CommonPrefixes', xml).map(found => keyIn('Prefix', found)),
      files: all('Contents', xml).map(found => ({
        key: keyIn('Key', found),
        size: Number(one('Size', found)),
        mtime: new Date(one('LastModified', found)),
      })),
      more: one('NextContinuationToken', xml),
    };
  }

  /** `allowed`: statuses that are no error. */
  async #request(path, options = {}, allowed = []) {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await this.#aws.fetch(`${this.#bucket}/${path}`, { ...options, signal });
    const { status } = response;
    if (status < 400 || allowed.includes(status)) return response;
    await response.body?.cancel();
    throw status === 404 ? ENOENT : status === 401 || status === 403 ? EACCES : EIO;
  }
}

const pathOf = key => key.split('/').map(encodeURIComponent).join('/');

function attributesOf({ headers }) {
  return { size: Number(headers.get('content-length')), mtime: new Date(headers.get('last-modified')) };
}

export default function makeTree({ source, warn }) {
  const {
    AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    AWS_REGION = 'us-east-1',
  } = process.env;
  if (!AWS_ACCESS_KEY_ID || !AWS_SECRET_ACCESS_KEY)
    throw new Error('set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY');
  const aws = new AwsClient({
    accessKeyId: AWS_ACCESS_KEY_ID,
    secretAccessKey: AWS_SECRET_ACCESS_KEY,
    sessionToken: AWS_SESSION_TOKEN,
    region: AWS_REGION,
    service: 's3',
  });
  return new BucketTree(source.replace(/\/$/, ''), aws, { warn });
}
