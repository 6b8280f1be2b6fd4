const factors: Readonly<Record<string, number>> = { '': 1, k: 1 << 10, m: 1 << 20, g: 1 << 30 };

/** Parses a whole number, also with a suffix for powers of 1024: 4096, 16M, 16MiB, 1k. Undefined if invalid. */
export function wholeNumber(text: string): number | undefined {
  const [, digits, suffix = ''] = /^([0-9]{1,15})(?:([kmg])(?:i?b)?)?$/i.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * factors[suffix.toLowerCase()]!;
}
