// `npm run bench -- --guest`: what programs in a real guest see, over each transport to the same kind of directory. The guest is
// that of the tests, whose processor is emulated, so that the figures stand for the number of round trips and their latency
// more than for the speed of a server.
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, run, SetupFault } from '../scripts/setup.mjs';
import { leastRounds, median } from './measure.mjs';
import { Running } from './peers.mjs';
import { short } from './report.mjs';

/** The msize of virtio with 128 descriptors, and diod's largest. */
const msizes = { virtio: 512_000, tcp: 65_536 };

/** Transports and servers by name. `beside` is the one to compare with. */
const transports = {
  'QEMU passthrough': { trans: 'virtio', tag: 'q-passthrough', qemu: 'passthrough' },
  'QEMU mapped-xattr': { trans: 'virtio', tag: 'q-mapped', qemu: 'mapped-xattr' },
  'vhost-user passthrough': {
    trans: 'virtio',
    tag: 'v-passthrough',
    model: 'passthrough',
    beside: 'QEMU passthrough',
  },
  'vhost-user passthrough, polled': {
    trans: 'virtio',
    tag: 'p-polled',
    model: 'passthrough',
    poll: 200,
    beside: 'QEMU passthrough',
  },
  'vhost-user mapped': { trans: 'virtio', tag: 'v-mapped', model: 'mapped', beside: 'QEMU mapped-xattr' },
  'vhost-user mapped, polled': {
    trans: 'virtio',
    tag: 'v-polled',
    model: 'mapped',
    poll: 200,
    beside: 'QEMU mapped-xattr',
  },
  'diod over TCP': { trans: 'tcp', peer: 'diod' },
  'TCP passthrough': { trans: 'tcp', peer: 'passthrough', beside: 'diod over TCP' },
  'TCP mapped': { trans: 'tcp', peer: 'mapped', beside: 'diod over TCP' },
  'TCP mapped, polled': { trans: 'tcp', peer: 'polled', beside: 'diod over TCP' },
};

/** A case is a script in bash, what it does once, and in which unit. `prepare` runs once before. */
export const guestCases = [
  {
    name: 'write 1 MiB',
    amount: 32,
    unit: 'MiB',
    script: 'dd if=/dev/zero of=big bs=1M count=32 conv=notrunc status=none',
  },
  { name: 'read 1 MiB', amount: 32, unit: 'MiB', script: 'dd if=big of=/dev/null bs=1M status=none' },
  {
    name: 'read 4 KiB',
    amount: 1000,
    unit: 'reads',
    script: 'dd if=big of=/dev/null bs=4k count=1000 status=none',
  },
  {
    name: 'stat of 500',
    amount: 500,
    unit: 'files',
    prepare: 'mkdir many; (cd many; touch {1..500})',
    script: 'stat -c %s many/* >/dev/null',
  },
  { name: 'ls -l of 500', amount: 500, unit: 'files', script: 'ls -l many >/dev/null' },
  {
    name: 'create, remove 200',
    amount: 200,
    unit: 'files',
    prepare: 'mkdir made',
    script: 'for i in {1..200}; do : >made/$i; done; rm made/*',
  },
];

const vhostDevice = (path, tag) => [
  ...['-chardev', `socket,id=${tag},path=${path}`, '-device'],
  `vhost-user-test-device-pci,chardev=${tag},virtio-id=9,num_vqs=1,vq_size=128,config_size=${2 + tag.length}`,
];

const qemuDevice = (path, tag, model) => [
  ...['-fsdev', `local,id=${tag},path=${path},security_model=${model},multidevs=remap`],
  ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
];

/** The guest tests' harness is TypeScript, which Node.js 20 cannot load; vite is part of vitest. */
async function harness() {
  const { runnerImport } = await import('vite');
  const load = async name => (await runnerImport(join(root, 'test', name))).module;
  const { Guest } = await load('support/guest.ts');
  const { Ninepd } = await load('support/ninepd.ts');
  const { sharedMemory } = await load('guest/guest-transport.ts');
  return { Guest, Ninepd, sharedMemory };
}

/** Starts all servers and the guest, and mounts every transport at /mnt/TAG. Returns the guest; `stops` is what to undo. */
async function start(dir, stops) {
  const { Guest, Ninepd, sharedMemory } = await harness();
  const all = Object.entries(transports).map(([name, transport]) => ({
    ...transport,
    name,
    path: join(dir, plain(name)),
  }));
  for (const { path } of all) mkdirSync(path);
  const socket = tag => join(dir, `${tag}.sock`);
  const vhost = all.filter(transport => transport.model);
  const server = await Ninepd.start({
    exports: vhost.map(({ path, tag, model }) => ({ path, name: tag, securityModel: model })),
    listen: vhost.map(
      ({ tag, poll = 0 }) => `vhost-user://${socket(tag)}?tag=${tag}&export=${tag}&busy-poll=${poll}`,
    ),
  });
  stops.push(() => server.stop());
  const guest = await Guest.start({
    cpus: 1,
    memoryArgs: sharedMemory(768),
    extraArgs: all.flatMap(({ path, tag, qemu, model }) =>
      qemu ? qemuDevice(path, tag, qemu) : model ? vhostDevice(socket(tag), tag) : [],
    ),
  });
  stops.push(() => guest.stop());
  for (const transport of all) {
    const mount = {
      trans: transport.trans,
      tag: transport.tag,
      path: mountPoint(transport.name),
      msize: msizes[transport.trans],
    };
    if (transport.peer) {
      const running = await Running.start(transport.peer, transport.path);
      stops.push(() => running.stop());
      mount.port = Number(/\d+$/.exec(running.uri)[0]);
      mount.aname = transport.path;
    }
    // Without a name the kernel attaches as nobody, which diod refuses.
    await guest.mount({ ...mount, cache: 'none', extra: 'uname=root' });
  }
  return guest;
}

const plain = name => name.replaceAll(/[ ,]+/g, '-');
const mountPoint = name => `/mnt/${plain(name)}`;

/** Microseconds by the guest's clock. */
async function time(guest, name, script) {
  const timed = `cd ${mountPoint(name)}; a=\${EPOCHREALTIME/./}; ${script}; b=\${EPOCHREALTIME/./}; echo $((b - a))`;
  return Number((await guest.sh(timed, { timeout: 120_000 })).stdout);
}

/** Measures a case on all transports, in reverse order every other round. */
async function measure(guest, one, { rounds, until }) {
  const names = Object.keys(transports);
  if (one.prepare) for (const name of names) await guest.sh(`cd ${mountPoint(name)}; ${one.prepare}`);
  const rates = Object.fromEntries(names.map(name => [name, []]));
  const least = leastRounds(until);
  for (let round = 0; round < rounds && (round < least || Date.now() < until); round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      rates[name].push((one.amount * 1e6) / (await time(guest, name, one.script)));
    }
  }
  const summary = ([name, { beside }]) => {
    const ratio = beside && median(rates[name].map((rate, round) => rate / rates[beside][round]));
    return [name, { perSecond: median(rates[name]), beside, ratio, rounds: rates[name] }];
  };
  return {
    name: one.name,
    unit: one.unit,
    transports: Object.fromEntries(Object.entries(transports).map(summary)),
  };
}

const rows = ({ name: title, unit, transports }) =>
  Object.entries(transports).map(([name, { perSecond, beside, ratio }], index) => [
    index === 0 ? title : '',
    name,
    `${short(perSecond)} ${unit}`,
    beside ? `${short(ratio)} × ${beside}` : '',
  ]);

function lines(found) {
  return rows(found).map(([title, name, rate, compared]) =>
    `${title.padEnd(20)} ${name.padEnd(30)} ${rate.padStart(16)} ${compared}`.trimEnd(),
  );
}

export function guestMarkdown(all) {
  return [
    '| in a guest | transport | per second | beside |',
    '|---|---|--:|---|',
    ...all.flatMap(rows).map(cells => `| ${cells.join(' | ')} |`),
  ].join('\n');
}

/**
 * Measures what programs in a guest see, until about `until`; `print` gets the lines of each case, `tick` its name when it is
 * done. Returns for each case { name, unit, transports }.
 */
export async function measureInGuest({ rounds, until, print, tick }) {
  if (process.getuid() !== 0) throw new SetupFault('passthrough and diod need root');
  if (!run(process.execPath, [join(root, 'scripts', 'guest-image.mjs')])) {
    throw new SetupFault('the guest could not be made: see above');
  }
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-bench-')));
  const stops = [];
  const found = [];
  try {
    const guest = await start(dir, stops);
    for (const [index, one] of guestCases.entries()) {
      const share = Math.max(0, until - Date.now()) / (guestCases.length - index);
      found.push(await measure(guest, one, { rounds, until: Date.now() + share }));
      print(lines(found.at(-1)).join('\n'));
      tick(one.name);
    }
  } finally {
    for (const stop of stops.reverse()) await stop();
    rmSync(dir, { recursive: true, force: true });
  }
  return found;
}
