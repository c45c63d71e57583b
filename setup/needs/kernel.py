"""What the kernel must be able to do. Runs are confined by Landlock and seccomp; the local cluster needs overlay file
systems, bridges, nftables, cgroups and network namespaces. Each is tried where that changes nothing."""

import ctypes
import os
import platform
import tempfile
from pathlib import Path

from .command import Failed, run
from .finding import MISSING, OK, Finding

# Signals and abstract sockets are confined from this Landlock ABI on (Linux 6.12); heads insist on it.
LANDLOCK_ABI = 6
LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
LANDLOCK_CREATE_RULESET_VERSION = 1
NEWER_KERNEL = "boot Linux 6.12 or later with CONFIG_SECURITY_LANDLOCK=y and landlock in the lsm= list"


def landlock():
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
    if abi < 0:
        raise Failed(f"Linux {platform.release()} has no Landlock: {os.strerror(ctypes.get_errno())}")
    if abi < LANDLOCK_ABI:
        raise Failed(f"Linux {platform.release()} has Landlock ABI {abi}, runs need {LANDLOCK_ABI}")
    return f"Landlock ABI {abi}"


def seccomp_filters():
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Seccomp_filters:"):
            return "seccomp filters"
    raise Failed("the kernel has no seccomp filters")


def overlay():
    """Mounts one in a mount namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        for name in ("lower", "upper", "work", "merged"):
            (Path(folder) / name).mkdir()
        mount = "mount -t tmpfs none upper && mkdir upper/u upper/w && " \
            "mount -t overlay overlay -o lowerdir=lower,upperdir=upper/u,workdir=upper/w merged"
        run("unshare", "--mount", "sh", "-c", mount, folder=folder)
    return "overlay file systems"


def bridge():
    """Makes one in a network namespace of its own."""
    run("unshare", "--net", "sh", "-c", "ip link add probe type bridge && ip link set probe up")
    return "bridges"


def nftables():
    rules = "add table ip probe; add chain ip probe c { type nat hook prerouting priority 0; }"
    run("unshare", "--net", "nft", rules)
    return "nftables with network address translation"


def cgroups():
    """Version 2 with the controllers that the kubelet needs, or version 1 with these mounted and writable."""
    root = Path("/sys/fs/cgroup")
    wanted = {"cpu", "memory", "pids"}
    if (root / "cgroup.controllers").exists():
        here = set((root / "cgroup.controllers").read_text(encoding="utf-8").split())
        version = 2
    else:
        here = {name for name in wanted if (root / name / "cgroup.procs").exists()}
        version = 1
    if wanted - here:
        raise Failed(f"cgroup controllers are missing: {', '.join(sorted(wanted - here))}")
    if not os.access(root, os.W_OK):
        raise Failed(f"{root} cannot be written")
    return f"cgroups, version {version}"


CONFINEMENT = [
    ("landlock", landlock, NEWER_KERNEL),
    ("seccomp", seccomp_filters, "boot a kernel with CONFIG_SECCOMP_FILTER=y"),
]
# Name, probe, remedy, and the programs without which the probe says nothing yet: they may be about to be installed.
CLUSTER = [
    ("overlayfs", overlay, "boot a kernel with CONFIG_OVERLAY_FS, or run: modprobe overlay", ()),
    ("bridge", bridge, "boot a kernel with CONFIG_BRIDGE, or run: modprobe bridge", ("ip",)),
    ("nftables", nftables, "boot a kernel with CONFIG_NF_TABLES and CONFIG_NFT_NAT, or run: modprobe nft_nat", ("nft",)),
    ("cgroups", cgroups, "mount the cgroup file systems; in a container, give it a writable /sys/fs/cgroup", ()),
]


def findings(parts, awaited):
    """`awaited` names the programs that are about to be installed: what needs them is tried afterwards."""
    wanted = [(*row, ()) for row in CONFINEMENT] if {"cluster", "tests", "run"} & set(parts) else []
    # Only root may try the others; that root is missing is a finding of its own.
    if "cluster" in parts and os.getuid() == 0:
        wanted += CLUSTER
    for name, look, remedy, needs in wanted:
        if set(needs) & set(awaited):
            continue
        try:
            yield Finding(f"kernel: {name}", OK, look())
        except (Failed, OSError) as failed:
            yield Finding(f"kernel: {name}", MISSING, str(failed), remedy)
