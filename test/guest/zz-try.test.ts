import { mkdirSync, mkdtempSync, writeFileSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'vitest';
import { Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { VsockDevice } from './way.ts';

test.each(['', ',event_idx=off'])('bulk reads%s', async extra => {
  const dir = mkdtempSync(join(tmpdir(), 'ninepd-try-'));
  const device = await VsockDevice.start();
  mkdirSync(join(dir, 'x'));
  writeFileSync(join(dir, 'x/g'), '');
  truncateSync(join(dir, 'x/g'), 64 << 20);
  const server = await Ninepd.start({ exports: [{ path: join(dir, 'x'), name: 'x', securityModel: 'mapped' }], listen: [`unix://${device.path}`] });
  const args = [...device.guest.extraArgs!];
  args[args.length - 1] += extra;
  const guest = await Guest.start({ ...device.guest, extraArgs: args, cpus: 1 });
  try {
    await guest.sh('guest-module vmw_vsock_virtio_transport');
    await guest.mount({ trans: 'vsock', port: 564, path: '/mnt/x', aname: 'x', cache: 'none' });
    for (let i = 0; i < 12; i++) {
      const t = Date.now();
      const r = await guest.sh('dd if=/mnt/x/g of=/dev/null bs=1M 2>&1 | tail -1', { timeout: 12000 }).catch(e => ({ stdout: `STALL ${e.message.slice(0, 40)}` }));
      console.log(extra, i, Date.now() - t, r.stdout);
      if (r.stdout.startsWith('STALL')) {
        const s = await guest.sh('cat /proc/interrupts | grep -i virtio; dmesg | tail -3; ps aux | grep " D " | head -5; for p in $(pgrep dd); do cat /proc/$p/stack; done', { timeout: 5000 }).catch(e => ({ stdout: e.message }));
        console.log(s.stdout);
        await new Promise(r => setTimeout(r, 1500));
        const s2 = await guest.sh('cat /proc/interrupts | grep -i virtio', { timeout: 5000 }).catch(e => ({ stdout: e.message }));
        console.log(s2.stdout);
        break;
      }
    }
  } finally {
    await guest.stop(); await device.stop(); await server.stop();
  }
});
