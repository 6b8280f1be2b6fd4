/** The mount tag, and what to type on either side of a device. No native code, so that a command line can be checked. */

/** It lies in the configuration space behind its length; monitors ask for 256 bytes at most. */
export const tagBytesMax = 254;

const virtio9p = 9;
const queueSize = 128;
/** What the kernel's virtio transport takes at most, in pages of 4 KiB. */
const msize = 512_000;

/** Why this tag cannot be, or undefined. */
export function tagError(tag: string): string | undefined {
  if (tag === '')
    return 'a tag is needed, which the guest mounts, as in vhost-user:///run/vm1.sock?tag=share';
  if (Buffer.byteLength(tag) > tagBytesMax)
    return `the tag is longer than ${tagBytesMax} bytes: choose a shorter one`;
  if (/[\0-\x20,]/.test(tag))
    return 'the tag has a blank, a comma or a control character: choose a plain one';
  return undefined;
}

/** The configuration space: tag_len[2] tag[tag_len]. */
export function configOf(tag: string): Buffer {
  const bytes = Buffer.from(tag);
  const config = Buffer.alloc(2 + bytes.length);
  config.writeUInt16LE(bytes.length, 0);
  bytes.copy(config, 2);
  return config;
}

/** The options that QEMU needs for a device behind the socket at `path`. */
export function monitorHint(path: string, tag: string): string {
  return (
    'QEMU: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem ' +
    `-chardev socket,id=ninepd,path=${path.replaceAll(',', ',,')} -device vhost-user-test-device-pci,` +
    `chardev=ninepd,virtio-id=${virtio9p},num_vqs=1,vq_size=${queueSize},config_size=${configOf(tag).length}`
  );
}

/** The command that the guest needs. */
export function guestHint(tag: string): string {
  return `in the guest: mount -t 9p -o trans=virtio,version=9p2000.L,msize=${msize},access=client ${tag} /mnt`;
}
