export function muslOf(arch: string): string;
