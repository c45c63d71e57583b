"""The registries that something is still to be downloaded from, each asked through its ordinary client."""

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .command import Failed, run
from .finding import MISSING, OK, Finding
from .toolchains import REPOSITORY

MANIFEST = '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[lib]\npath = "lib.rs"\n[dependencies]\n{}\n'
BEHIND_A_PROXY = "check the network, and the proxy or mirror that is configured for"


def crates():
    """Everything of Cargo.lock is here already, or the registry answers for one small crate."""
    try:
        run("cargo", "fetch", "--locked", "--offline", folder=REPOSITORY, seconds=60)
        return "every crate is here already"
    except Failed:
        pass
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        (Path(folder) / "Cargo.toml").write_text(MANIFEST.format('itoa = "1"'), encoding="utf-8")
        (Path(folder) / "lib.rs").touch()
        run("cargo", "generate-lockfile", folder=folder, environment={"CARGO_NET_RETRY": "1"}, seconds=60)
    return "crates.io answers"


def go_modules():
    """The proxy answers for one small module, without a look into the cache."""
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        variables = {"GOFLAGS": "-mod=mod", "GOMODCACHE": folder, "GOTOOLCHAIN": "local"}
        (Path(folder) / "go.mod").write_text("module probe\n\ngo 1.21\n", encoding="utf-8")
        run("go", "mod", "download", "-modcacherw", "rsc.io/quote@v1.5.2", folder=folder, environment=variables, seconds=60)
    return "the Go module proxy answers"


def python_packages():
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        words = ("--quiet", "--no-deps", "--no-cache-dir", "--retries", "1", "--timeout", "20", "--dest", folder)
        run("python3", "-m", "pip", "download", *words, "six==1.17.0", seconds=60)
    return "PyPI answers"


def debian_packages():
    """apt's own list of packages can be brought up to date."""
    said = run("apt-get", "update", "-qq", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", seconds=180)
    failed = re.search(r"^[WE]: (.*)$", said, re.MULTILINE)
    if failed:
        raise Failed(failed.group(1))
    return "Debian's mirror answers"


REGISTRIES = {
    "crates.io": (crates, f"{BEHIND_A_PROXY} cargo (~/.cargo/config.toml: [source], [http] proxy)"),
    "Go modules": (go_modules, f"{BEHIND_A_PROXY} Go (go env GOPROXY)"),
    "PyPI": (python_packages, f"{BEHIND_A_PROXY} pip (pip config list)"),
    "Debian": (debian_packages, f"{BEHIND_A_PROXY} apt (/etc/apt/sources.list.d, /etc/apt/apt.conf.d)"),
}


def asked(name):
    look, remedy = REGISTRIES[name]
    try:
        return Finding(f"registry: {name}", OK, look())
    except Failed as failed:
        return Finding(f"registry: {name}", MISSING, str(failed), remedy)


def findings(names):
    """Asked side by side: an absent registry answers only after its client has given up."""
    with ThreadPoolExecutor() as threads:
        yield from threads.map(asked, names)
