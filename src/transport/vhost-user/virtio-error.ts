/**
 * A guest or its driver broke the rules of virtio, so that what its rings say means nothing any more. The device stops
 * until it is reset (DEVICE_NEEDS_RESET of virtio 1.2 §2.1.2); the message says what was wrong.
 */
export class VirtioError extends Error {}

/** An address that is no memory of the guest, at least not now. */
export class Unmapped extends VirtioError {}
