import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Guest, kernelCommandLine, type Manifest } from '../support/guest.ts';

// A guest that is a domain of libvirt's QEMU driver, in a root directory that holds Debian's libvirt and QEMU
// (scripts/guest/qemu.mjs). It shares nothing with a libvirt of this machine.

/** The user and group as whom Debian's libvirt runs QEMU. */
export const libvirtQemu = 64_055;

const transports = fileURLToPath(new URL('../../docs/transports.md', import.meta.url));

/** The domain of docs/transports.md, which has all that a domain needs for ninepd. */
function documentedDomain(): string {
  const xml = /```xml\n(<domain [\s\S]*?<\/domain>)\n```/.exec(readFileSync(transports, 'utf8'))?.[1];
  if (xml === undefined) throw new Error(`${transports} has no domain`);
  return xml;
}

// No log daemon, no cgroups, no mount namespaces. The image keeps its owner, since other guests use it too.
const configuration = `
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
dynamic_ownership = 0
`;

// Process 1 of a PID namespace, so that its end kills libvirt and QEMU. It reaps QEMU, which libvirt detaches and waits for.
// Without /dev/kvm libvirt probes QEMU once; with one that libvirt-qemu may not open, for every use. A host named "localhost" is
// not looked up.
const enter = `
root=$1
mount -t proc proc $root/proc
mount --bind /sys $root/sys
mount -t tmpfs -o mode=755 tmpfs $root/dev
for device in null zero full random urandom; do
  : > $root/dev/$device
  mount --bind /dev/$device $root/dev/$device
done
mount --bind "$2" $root/run
mount --bind "$3" $root/tmp
mount --bind "$4" $root/guest
echo localhost > /proc/sys/kernel/hostname
env -i PATH=/usr/bin LC_ALL=C \\
  unshare --root=$root virt-qemu-run --verbose --root /tmp/embed /tmp/domain.xml && status=0 || status=$?
cat $root/tmp/embed/log/qemu/*.log || true
exit $status`;

/** Starts a domain. Its /run is the directory `run` of this machine; `devices` is XML. */
export function startDomain(run: string, machine: string, devices: string): Promise<Guest> {
  return Guest.run((manifest, dir) => {
    const cache = dirname(dirname(manifest.kernel));
    chmodSync(dir, 0o755);
    chownSync(join(dir, 'agent.sock'), libvirtQemu, libvirtQemu);
    mkdirSync(join(dir, 'embed/etc'), { recursive: true });
    writeFileSync(join(dir, 'embed/etc/qemu.conf'), configuration);
    writeFileSync(join(dir, 'domain.xml'), domain(manifest, cache, machine, devices));
    const namespaces = ['--mount', '--uts', '--pid', '--fork', '--kill-child'];
    const directories = [manifest.libvirtRoot, run, dir, cache];
    return ['unshare', ...namespaces, 'sh', '-ec', enter, 'sh', ...directories];
  });
}

/** The documented domain with what every guest of the tests has (test/support/guest.ts), emulated. */
function domain(manifest: Manifest, cache: string, machine: string, devices: string): string {
  const inGuest = (path: string) => path.replace(cache, '/guest');
  const rest = `
  <name>vm1</name>
  <memory unit='MiB'>768</memory>
  <os>
    <type machine='${machine}'>hvm</type>
    <kernel>${inGuest(manifest.kernel)}</kernel>
    <initrd>${inGuest(manifest.initramfs)}</initrd>
    <cmdline>${kernelCommandLine}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'><feature name='erms' policy='disable'/><feature name='fsrm' policy='disable'/></cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <disk type='file'>
      <driver name='qemu' type='raw'/><source file='${inGuest(manifest.rootDisk)}'/><target dev='vda' bus='virtio'/><readonly/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='/tmp/console.log'/></serial>
    <channel type='unix'><source mode='connect' path='/tmp/agent.sock'/><target type='virtio' name='agent'/></channel>
    ${devices}
  </devices>
`;
  return documentedDomain().replace("type='kvm'", "type='qemu'").replace('</domain>', `${rest}</domain>`);
}
