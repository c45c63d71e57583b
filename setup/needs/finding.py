"""What is known of one need: whether it is met, and if not, what meets it."""

from dataclasses import dataclass

OK = "ok"
INSTALL = "install"  # missing, and `setup/requirements` installs it
MISSING = "missing"  # missing, and only a person can change that


@dataclass(frozen=True)
class Finding:
    """One line of the list. `packages` are Debian's names, `toolchain` says that rustup brings it."""

    name: str
    state: str
    detail: str
    remedy: str = ""
    packages: tuple[str, ...] = ()
    toolchain: bool = False
