"""Rust, Go and Python, in the versions that the project pins."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

from .command import Failed, run
from .finding import INSTALL, MISSING, OK, Finding

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = (3, 11)


def rust():
    pinned = tomllib.loads((REPOSITORY / "rust-toolchain.toml").read_text(encoding="utf-8"))["toolchain"]
    if not shutil.which("rustup"):
        remedy = "install rustup from https://rustup.rs, with --default-toolchain none; it reads rust-toolchain.toml"
        return Finding("rust", MISSING, "rustup is not there", remedy)
    try:
        version = run("rustup", "run", pinned["channel"], "rustc", "--version").split()[1]
        targets = set(run("rustup", "target", "list", "--installed", "--toolchain", pinned["channel"]).split())
        components = run("rustup", "component", "list", "--installed", "--toolchain", pinned["channel"])
    except Failed as failed:
        return Finding("rust", INSTALL, str(failed), toolchain=True)
    lacking = sorted(set(pinned["targets"]) - targets)
    lacking += [name for name in pinned["components"] if not re.search(rf"^{name}\b", components, re.MULTILINE)]
    if lacking:
        return Finding("rust", INSTALL, f"Rust {version} lacks {', '.join(lacking)}", toolchain=True)
    return Finding("rust", OK, f"Rust {version} with {', '.join(sorted(pinned['targets']))}")


def wanted_go():
    """The newest `go` line among the pinned modules."""
    found = [
        tuple(map(int, match.group(1).split(".")))
        for module in (REPOSITORY / "e2e").rglob("go.mod")
        if (match := re.search(r"^go (\d+\.\d+(?:\.\d+)?)$", module.read_text(encoding="utf-8"), re.MULTILINE))
    ]
    return max(found)


def go():
    wanted = ".".join(map(str, wanted_go()))
    remedy = f"install Go {wanted} or later from https://go.dev/dl and put its bin folder on PATH"
    try:
        said = run("go", "env", "GOVERSION", environment={"GOTOOLCHAIN": "local"}, folder="/").strip()
    except Failed as failed:
        return Finding("go", MISSING, str(failed), remedy)
    numbers = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", said)
    if not numbers or tuple(int(part or 0) for part in numbers.groups()) < wanted_go():
        return Finding("go", MISSING, f"{said} is older than {wanted}", remedy)
    return Finding("go", OK, f"Go {said.removeprefix('go')}")


def python():
    said = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return Finding("python", MISSING, f"Python {said}", f"put a python3 of version {wanted} or later on PATH")
    return Finding("python", OK, f"Python {said}")


def findings(parts):
    yield python()
    if "build" in parts:
        yield rust()
    if "cluster" in parts:
        yield go()
