//! The paths that a run may use, by what is allowed beneath them.

pub(super) const EXECUTE: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt",
];

/// `/proc/self` is not among them: it would open the memory and the environment of the process itself to any library,
/// and the link leads elsewhere in each process.
pub(super) const READ: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/fonts",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];

pub(super) const DEVICE: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// What a GPU's driver library reads of the kernel's side.
pub(super) const DRIVER: &[&str] = &[
    "/proc/devices",
    "/proc/driver/nvidia",
    "/proc/sys/vm/mmap_min_addr",
    "/sys/bus/pci/devices",
    "/sys/devices/pci0000:00",
    "/sys/module/nvidia",
    "/sys/module/nvidia_uvm",
];
