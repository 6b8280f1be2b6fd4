export const nodeVersions: string[];
