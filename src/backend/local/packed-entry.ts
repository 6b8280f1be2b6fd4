/** Offsets within a packed 9P directory entry: qid type u8, version u32, path u64; offset u64; type u8; name[s]. */
export const pathAt = 5;
export const cookieAt = 13;
export const typeAt = 21;
export const nameLengthAt = 22;
export const nameAt = 24;
