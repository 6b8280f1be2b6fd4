/**
 * A guest's driver violated virtio, so that the contents of its rings are meaningless. The device stops until it is reset
 * (DEVICE_NEEDS_RESET, virtio 1.2 §2.1.2). The message says what was wrong.
 */
export class VirtioError extends Error {}

/** A guest address that no memory region contains now. */
export class Unmapped extends VirtioError {}
