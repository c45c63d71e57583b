"""Debian's package manager: how much an installation downloads, and the installation."""

import os
import shutil
import subprocess

from .command import Failed, run

NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}


def may_install():
    return os.getuid() == 0 and shutil.which("apt-get") is not None


def download_size(packages):
    """(number of packages, bytes) that installing these downloads, dependencies included."""
    said = run("apt-get", "install", "--no-install-recommends", "--print-uris", "-qq", *packages, seconds=60)
    sizes = [int(line.rsplit(" ", 2)[1]) for line in said.splitlines() if line.startswith("'")]
    return len(sizes), sum(sizes)


def install(packages):
    """Installs, and shows apt's own progress lines."""
    words = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    done = subprocess.run(words, env=os.environ | NONINTERACTIVE, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(words)} failed")
