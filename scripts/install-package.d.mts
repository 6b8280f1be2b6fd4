/** The tarball, the folder where it is installed, and the program there. */
export function installPackage(): { tarball: string; installed: string; program: string };
export function installIn(folder: string, packages: string[], node?: string): void;
