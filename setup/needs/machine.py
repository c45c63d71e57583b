"""The machine itself: rights, processor, disk, memory."""

import os
import platform
import shutil
from pathlib import Path

from . import programs
from .finding import MISSING, OK, Finding

GIB = 1024**3
# Free space in GiB that each part takes from nothing, measured and rounded up: docs/setup.md.
DISK = {"build": 4, "tests": 9, "cluster": 7, "images": 3}
MEMORY = {"build": 4, "tests": 6, "cluster": 6}
RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13"}


def cache():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chimera"


def state():
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "chimera"


def existing(folder):
    """The nearest folder above that exists."""
    return folder if folder.exists() else existing(folder.parent)


def size(folder):
    """Bytes on disk below a folder, hard links once."""
    seen, total = set(), 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                known = os.lstat(os.path.join(root, name))
            except OSError:
                continue
            if known.st_ino not in seen:
                seen.add(known.st_ino)
                total += known.st_blocks * 512
    return total


def disk(parts):
    """What is still to be written must fit: what earlier builds left counts as written already."""
    needed = sum(DISK.get(part, 0) for part in parts)
    folder = existing(cache())
    free = shutil.disk_usage(folder).free / GIB
    if free < needed and cache().exists():
        needed = max(1, needed - size(cache()) / GIB)
    detail = f"{free:.1f} GiB free in {folder}"
    if free < needed:
        remedy = f"free {needed - free:.1f} GiB there, or set XDG_CACHE_HOME and XDG_STATE_HOME to a larger disk"
        return Finding("disk", MISSING, f"{detail}, {needed:.0f} GiB needed", remedy)
    return Finding("disk", OK, detail)


def memory(parts):
    needed = max((MEMORY.get(part, 0) for part in parts), default=0)
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) * 1024 / GIB
    # A machine of N GiB shows a little less than that.
    if total < needed * 0.9:
        return Finding("memory", MISSING, f"{total:.1f} GiB, {needed} GiB needed", "use a machine with more memory")
    return Finding("memory", OK, f"{total:.1f} GiB")


def system():
    said = f"{platform.system()} on {platform.machine()}"
    if said != "Linux on x86_64":
        return Finding("system", MISSING, said, "use Linux on x86_64; the static programs are built for it alone")
    name = RELEASES.get(programs.release())
    if name is None:
        # Everything may be there all the same; only the names of packages are unknown.
        return Finding("system", OK, f"{said}, not a Debian release that package names are known for")
    return Finding("system", OK, f"{name}, {said}, kernel {platform.release()}, {os.cpu_count()} processors")


def rights():
    if os.getuid() != 0:
        remedy = "run it as root (sudo --preserve-env=PATH make …), or set KUBECONFIG to a cluster of yours"
        return Finding("root", MISSING, "the local cluster's kubelet needs root", remedy)
    return Finding("root", OK, "running as root")


def findings(parts):
    yield system()
    if "cluster" in parts:
        yield rights()
    yield disk(parts)
    yield memory(parts)
