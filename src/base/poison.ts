const poisonByte = 0xdb;

/**
 * With NINEPD_POISON=1, overwrites memory that must no longer be used. Tests set it: a call that still reads the memory then
 * yields wrong bytes.
 */
export const poison: (bytes: Uint8Array, from?: number, to?: number) => void =
  process.env.NINEPD_POISON === '1'
    ? (bytes, from, to) => void bytes.fill(poisonByte, from, to)
    : () => undefined;
