// What a guest is made of, by Debian's names.

// The Linux whose 9p client the tests use: the metapackage's one dependency is the kernel itself.
export const kernelMetapackage = 'linux-image-amd64';

export const rootPackages = [
  'acl',
  'attr',
  'bash',
  'busybox-static',
  'coreutils',
  'diffutils',
  'findutils',
  'fio',
  'git',
  'grep',
  'libc6-dev',
  'libcap2-bin',
  'make',
  'mount',
  'perl-base',
  'sed',
  'sqlite3',
  'strace',
  'tar',
  'tcc',
  'util-linux',
];

// Dependencies that only matter to a system that is installed, booted with systemd or asked to explain itself.
export const rootLeftOut = [
  /^(systemd|systemd-.*|libsystemd-shared|udev|dpkg|login.*|passwd|adduser|init-system-helpers)$/,
  /^(python3.*|libpython3.*|perl|perl-modules-.*|libperl.*|git-man|media-types|tzdata|netbase|linux-libc-dev-.*)$/,
  /^(libc-l10n|debconf|sensible-utils|openssl-provider-legacy|libpam.*|usrmerge|init|dbus.*)$/,
];

export const qemuPackages = ['qemu-system-x86'];
