/** The mount tag, and the commands for both sides of a device. No native code, so that a command line can be checked. */

/** The configuration space holds the tag after its length[2]; monitors request at most 256 bytes. */
const tagBytesMax = 254;

const virtio9p = 9;
const queueSize = 128;
/** The largest msize of the kernel's virtio transport with pages of 4 KiB. */
const msize = 512_000;

/** What is wrong with a tag; undefined if it is valid. */
export function tagError(tag: string): string | undefined {
  if (tag === '')
    return 'a tag is needed, which the guest mounts, as in vhost-user:///run/vm1.sock?tag=share';
  if (Buffer.byteLength(tag) > tagBytesMax)
    return `the tag is longer than ${tagBytesMax} bytes: choose a shorter one`;
  if (/[\0-\x20,]/.test(tag))
    return 'the tag has a blank, a comma or a control character: choose one without';
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

/** QEMU's options for a device on the socket at `path`. */
export function monitorHint(path: string, tag: string): string {
  return (
    'QEMU: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem ' +
    `-chardev socket,id=ninepd,path=${path.replaceAll(',', ',,')} -device vhost-user-test-device-pci,` +
    `chardev=ninepd,virtio-id=${virtio9p},num_vqs=1,vq_size=${queueSize},config_size=${configOf(tag).length}`
  );
}

/** The guest's mount command. */
export function guestHint(tag: string): string {
  return `in the guest: mount -t 9p -o trans=virtio,version=9p2000.L,msize=${msize},access=client ${tag} /mnt`;
}
