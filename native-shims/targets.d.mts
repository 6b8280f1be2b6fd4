export const publishedTargets: string[];
export function ownTarget(): string;
export function compilerFor(target: string): string | undefined;
export function argumentsFor(
  target: string,
  compiler: string,
  options: { kind: 'addon' | 'program'; folder: string; sysroot?: string },
): { before: string[]; after: string[] };
