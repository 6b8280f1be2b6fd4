const poisonByte = 0xdb;

/**
 * Overwrites memory that nobody may use any more, if NINEPD_POISON is 1: tests set it, so that a call that still reads such memory yields
 * bytes that are seen to be wrong.
 */
export const poison: (bytes: Uint8Array, from?: number, to?: number) => void =
  process.env.NINEPD_POISON === '1'
    ? (bytes, from, to) => void bytes.fill(poisonByte, from, to)
    : () => undefined;
