// What is measured. A case is data for the load generator (`load.h` names the steps):
//   steps        the sequence that every slot repeats
//   tree         the directory of the export that it happens in, see `tree.mjs`
//   file         the file there that is walked to
//   open         'r' or 'w': the file or directory is opened before
//   size         bytes of a read or write; without it as many as msize allows
//   msize        to ask for; a peer that agrees to less is left out
//   depth        requests in flight on each connection
//   connections  of them
//   pause        microseconds between a reply and the next request, in which the server's caches cool down
//   unit         what is counted per second
//   uid          of the user that attaches; without it, who runs the benchmark
//   quick        also in `--quick`
//   whole        one pass over the whole directory, however long that takes

const small = { tree: 'files', file: 'f0000000', unit: 'requests' };
const data = { tree: 'files', file: 'f0000001', unit: 'MiB' };
/** Size of the file for reads and writes, which stays in the page cache. */
export const dataBytes = 16 << 20;

const sequences = [
  { name: 'getattr', ...small, steps: ['getattr'] },
  { name: 'walk-getattr-clunk', ...small, steps: ['walk', 'getattr', 'clunk'] },
  { name: 'walk-lopen-clunk', ...small, steps: ['walk', 'lopen', 'clunk'] },
  { name: 'walk ENOENT', ...small, steps: ['absent'] },
  { name: 'create-remove', tree: 'made', unit: 'requests', steps: ['clone', 'lcreate', 'remove'] },
  { name: 'read 4 KiB', ...data, steps: ['read'], open: 'r', size: 4096 },
  { name: 'write 4 KiB', ...data, steps: ['write'], open: 'w', size: 4096 },
];

/** With passthrough and diod a user's request changes the thread's credentials. */
const byUser = {
  ...sequences[1],
  name: 'walk-getattr-clunk 16, uid 1000',
  depth: 16,
  uid: 1000,
  quick: true,
};

/** A mostly idle guest: only the latency is meaningful. */
const nowAndThen = { ...sequences[1], name: 'walk-getattr-clunk 1, 1 ms apart', depth: 1, pause: 1000 };

/** Cases of the guard: the most frequent requests, and one for each path through the server. */
const guarded = new Set(['getattr 1', ...sequences.map(({ name }) => `${name} 16`)]);

const atDepths = sequences.flatMap(sequence =>
  [1, 16].map(depth => {
    const name = `${sequence.name} ${depth}`;
    return { ...sequence, name, depth, quick: guarded.has(name) };
  }),
);

const msizes = [
  { label: '64 KiB', msize: 65_536, quick: true },
  { label: '1 MiB', msize: 1_048_576, quick: false },
].flatMap(({ label, msize, quick }) => [
  { name: `read msize ${label}`, ...data, steps: ['read'], open: 'r', msize, depth: 4, quick },
  { name: `write msize ${label}`, ...data, steps: ['write'], open: 'w', msize, depth: 4, quick },
]);

const listings = [
  { name: 'readdir 1,000', tree: 'thousand', quick: true },
  { name: 'readdir 1,000,000', tree: 'million', whole: true },
].map(one => ({ ...one, unit: 'entries', steps: ['readdir'], open: 'r', depth: 1 }));

const connections = [1, 2, 4, 8, 16, 32, 64].map(count => ({
  name: `getattr 4 × ${count} connections`,
  ...small,
  steps: ['getattr'],
  depth: 4,
  connections: count,
  quick: count === 64,
}));

export const cases = [...atDepths, byUser, nowAndThen, ...msizes, ...listings, ...connections];
