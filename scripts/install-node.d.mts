export function installNode(version: string, arch?: string): string;
