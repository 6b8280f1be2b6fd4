// The Debian packages of a guest.

// The Linux whose 9p client the tests use: the metapackage's one dependency is the kernel itself.
export const kernelMetapackage = 'linux-image-amd64';

export const rootPackages = [
  'acl',
  'attr',
  'bash',
  'busybox-static',
  'coreutils',
  'diffutils',
  'dmsetup',
  'e2fsprogs',
  'findutils',
  'fio',
  'git',
  'grep',
  'libc6-dev',
  'libcap2-bin',
  'libstdc++6',
  'make',
  'mount',
  'perl-base',
  'sed',
  'socat',
  'sqlite3',
  'strace',
  'tar',
  'tcc',
  'util-linux',
];

// Dependencies needed only by an installed system, by systemd, or for documentation.
export const rootLeftOut = [
  /^(systemd|systemd-.*|libsystemd-shared|udev|dpkg|login.*|passwd|adduser|init-system-helpers)$/,
  /^(python3.*|libpython3.*|perl|perl-modules-.*|libperl.*|git-man|media-types|tzdata|netbase|linux-libc-dev-.*)$/,
  /^(libc-l10n|debconf|sensible-utils|openssl-provider-legacy|libpam.*|usrmerge|init|dbus.*)$/,
];

// libvirt with its QEMU driver; virt-qemu-run starts one domain without a daemon.
export const qemuPackages = ['qemu-system-x86', 'libvirt-daemon-driver-qemu'];

// A vsock device for QEMU that is independent of the host's kernel. Stable has none; testing's works with stable's C library.
export const vsockDevicePackages = ['vhost-device-vsock'];
export const vsockDeviceRelease = 'forky';
