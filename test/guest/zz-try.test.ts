import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'vitest';
import { Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { VsockDevice } from './way.ts';

test.each([''])('bulk reads%s', async extra => {
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
    for (let i = 0; i < 6; i++) {
      const t = Date.now();
      const r = await guest.sh('cd /mnt/x; dd if=g bs=512 count=20000 of=/dev/null status=none; echo dd; cp --sparse=always g h; echo cp; cmp g h; echo cmp; rm h; for i in 1 2; do fio --name=a --directory=/mnt/x --size=16M --rw=randrw --bsrange=1-300k --runtime=3 --time_based --numjobs=1 --unlink=1 2>&1 | grep -E "READ|WRITE"; done', { timeout: 25000 }).catch(e => ({ stdout: `STALL ${e.message}` }));
      console.log(extra, i, Date.now() - t, r.stdout);
      if (r.stdout.startsWith('STALL')) {
        const s = await guest.sh('cat /proc/interrupts | grep -i virtio; dmesg | tail -3; ps aux | grep " D " | head -5; for p in $(pgrep dd); do cat /proc/$p/stack; done', { timeout: 5000 }).catch(e => ({ stdout: e.message }));
        console.log(s.stdout);
        console.log(execFileSync('sh', ['-c', `ss -xp | grep -E 'pid=(${server.pid}|${device.pid})'; for t in /proc/${device.pid}/task/*; do echo $(cat $t/comm) $(cat $t/wchan); done; timeout 3 strace -f -p ${device.pid} 2>&1 | grep -v attached | head -20`]).toString());
        console.log('SERVER', server.log().split('\n').length, server.log().slice(-3000));
        const s2 = await guest.sh('cat /proc/interrupts | grep -i virtio', { timeout: 5000 }).catch(e => ({ stdout: e.message }));
        console.log(s2.stdout);
        break;
      }
    }
  } finally {
    await guest.stop(); await device.stop(); await server.stop();
  }
});
