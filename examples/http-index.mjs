// The directory listings of an HTTP server (nginx, Apache, python3 -m http.server) as a tree:
//   npm install ninepd
//   npx ninepd serve --sandbox off --export ./http-index.mjs,source=https://deb.debian.org/debian/
import { EACCES, EIO, ENOENT, ReadOnlyTree } from 'ninepd/backend';

const timeoutMs = 30_000;
/** For how long the attributes of a lookup are still right for the request that follows it. */
const freshMs = 1000;

/** An item is { type, url }, and for files the attributes of the last lookup. A directory's URL ends with a slash. */
class HttpIndexTree extends ReadOnlyTree {
  async list({ url }) {
    const page = await (await request(url)).text();
    return [...page.matchAll(/<a\s[^>]*?href="([^"]*)"/gi)].flatMap(([, href]) => entryOf(url, href));
  }

  async find({ url }, name) {
    const child = new URL(encodeURIComponent(name), url);
    const response = await request(child, { method: 'HEAD', redirect: 'manual' }, [404]);
    if (response.status === 404) return undefined;
    // A directory's URL without its slash is redirected to the one with it.
    if (response.headers.get('location')?.endsWith('/'))
      return { type: 'directory', url: new URL(`${child}/`) };
    return { type: 'file', url: child, known: attributesOf(response), at: Date.now() };
  }

  async attributes(item) {
    if (item.type === 'directory') return {};
    if (item.known && Date.now() - item.at < freshMs) return item.known;
    item.known = attributesOf(await request(item.url, { method: 'HEAD' }));
    item.at = Date.now();
    return item.known;
  }

  async bytes({ url }, offset, length) {
    const headers = { range: `bytes=${offset}-${offset + length - 1}` };
    const response = await request(url, { headers }, [416]);
    // Not satisfiable: the offset is at the end.
    if (response.status === 416) return new Uint8Array(0);
    // A server without ranges sends everything from the start.
    return upTo(response, response.status === 206 ? 0 : offset, length);
  }
}

/** The entry of a link, if it is of something directly below the directory. */
function entryOf(url, href) {
  const linked = new URL(href.replaceAll('&amp;', '&'), url);
  if (linked.search || !linked.href.startsWith(url.href)) return [];
  const [, name, slash] = /^([^/]+)(\/?)$/.exec(linked.pathname.slice(url.pathname.length)) ?? [];
  if (name === undefined) return [];
  return [[decodeURIComponent(name), { type: slash ? 'directory' : 'file', url: linked }]];
}

function attributesOf({ headers }) {
  return {
    size: Number(headers.get('content-length') ?? 0),
    mtime: new Date(headers.get('last-modified') ?? 0),
  };
}

/** `allowed`: statuses that are no error. */
async function request(url, options = {}, allowed = []) {
  const headers = { 'accept-encoding': 'identity', ...options.headers };
  const response = await fetch(url, { ...options, headers, signal: AbortSignal.timeout(timeoutMs) });
  const { status } = response;
  if (status < 400 || allowed.includes(status)) return response;
  await response.body?.cancel();
  throw status === 404 ? ENOENT : status === 401 || status === 403 ? EACCES : EIO;
}

async function upTo(response, skip, length) {
  const parts = [];
  let bytes = 0;
  // Leaving the loop cancels the rest of the body.
  for await (const part of response.body ?? []) {
    parts.push(part);
    bytes += part.length;
    if (bytes >= skip + length) break;
  }
  return Buffer.concat(parts).subarray(skip, skip + length);
}

export default function makeTree({ source, warn }) {
  const url = new URL(source.endsWith('/') ? source : `${source}/`);
  return new HttpIndexTree({ type: 'directory', url }, { warn });
}
