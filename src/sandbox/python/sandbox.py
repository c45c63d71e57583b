"""Sandbox: what the forked child does to itself before any user code runs. Every step that fails ends the child.

Which system calls and which paths are allowed is the agent's decision (`policy.rs`); here they are only put in force.
Order matters: descriptors and session first, limits next, then landlock, and the last seccomp filters last, because they
refuse some of the calls that the steps before them need. The others are in force in the zygote already: what every child
would do alike is done there once.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import os
import resource
import signal
import stat
import sys
from typing import Any, Callable

CONTROL = 3
FIRST_PATH = 64
MOST_LOCKED = 64 << 20

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_GET_SECCOMP = 21
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
SECCOMP_MODE_FILTER = 2

# The same numbers on every architecture that has landlock.
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13  # ABI 2
TRUNCATE = 1 << 14  # ABI 3
IOCTL_DEV = 1 << 15  # ABI 5
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

RIGHTS = {
    "execute": EXECUTE | READ_FILE | READ_DIR,
    "read": READ_FILE | READ_DIR,
    "device": READ_FILE | WRITE_FILE | IOCTL_DEV,
    "own": EXECUTE | WRITE_FILE | READ_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO
    | MAKE_SYM | REFER | TRUNCATE,
}

TCP = 0b11  # bind and connect, ABI 4
SCOPE = 0b11  # abstract sockets and signals, ABI 6

libc = ctypes.CDLL(None, use_errno=True)


class RulesetAttributes(ctypes.Structure):
    """struct landlock_ruleset_attr"""

    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr"""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class FilterProgram(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


class Filter:
    """A seccomp filter, ready to be installed."""

    def __init__(self, encoded: str) -> None:
        program = base64.b64decode(encoded)
        self.instructions = ctypes.create_string_buffer(program, len(program))
        self.program = FilterProgram(len(program) // 8, ctypes.cast(self.instructions, ctypes.c_void_p))

    def install(self) -> None:
        check(
            libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(self.program), 0, 0),
            "install a seccomp filter",
        )


class Policy:
    """The agent's policy, prepared once in the zygote so that a child only has to apply it."""

    def __init__(self, policy: dict[str, Any], interpreter: list[str]) -> None:
        self.environment: dict[str, str] = policy["environment"]
        self.relative_limits: dict[str, int] = policy["limits"]
        self.limits: dict[str, int] = {}
        self.capabilities = os.geteuid() == 0
        self.confined: bool = policy["confined"]
        self.landlock_abi = 0
        if self.confined:
            self.prepare_confinement(policy, interpreter)
        self.confines_signals = self.landlock_abi >= 6

    def prepare_confinement(self, policy: dict[str, Any], interpreter: list[str]) -> None:
        self.landlock_abi = max(0, libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
        minimum: int = policy["minimumLandlock"]
        if self.landlock_abi < minimum:
            raise OSError(f"this kernel offers landlock ABI {self.landlock_abi}, and {minimum} is required")
        self.handled = (1 << 13) - 1
        for abi, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
            if self.landlock_abi >= abi:
                self.handled |= right
        wanted: dict[str, int] = {}
        for kind, paths in policy["paths"].items():
            for path in paths + (interpreter if kind == "execute" else []):
                path = os.path.realpath(path)
                wanted[path] = wanted.get(path, 0) | RIGHTS[kind]
        self.rules: list[PathBeneath] = []
        for path, rights in wanted.items():
            if not is_beneath(path, rights, wanted):
                self.add_rule(path, rights)
        self.filters = [Filter(program) for program in policy["seccomp"]]
        self.last_filters = [Filter(program) for program in policy["lastSeccomp"]]
        if not self.filters or not self.last_filters:
            raise ValueError("the policy has no seccomp filter")

    def add_rule(self, path: str, rights: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # What is not there needs no rule.
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= OF_A_FILE
        # Above the numbers that a child gives to its own descriptors before it reads these.
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_PATH)
        os.close(descriptor)
        self.rules.append(PathBeneath(allowed=rights & self.handled, parent=high))

    def fix_limits(self) -> None:
        """`memory` is for the run: what the zygote holds already is added, as the kernel counts it in as well. To be
        called once the modules are imported."""
        limits = self.relative_limits
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            held = memory_held(status.read())
        wanted = {
            "data": held["VmData"] + limits["memory"],
            # Address space bounds shared anonymous memory, which `data` does not count. Libraries that a run maps
            # and the stacks of its threads need addresses, but no memory: hence the gigabyte beside it.
            "as": held["VmSize"] + limits["memory"] + (1 << 30),
            "fsize": limits["file"],
            "nofile": limits["descriptors"],
            "nproc": limits["processes"],
            "memlock": MOST_LOCKED,
            "msgqueue": 0,
            # One byte makes no file, and it is the one value at which the kernel starts no program for crashes either.
            "core": 1,
        }
        self.limits = {name: attainable(name, value) for name, value in wanted.items()}


def is_beneath(path: str, rights: int, others: dict[str, int]) -> bool:
    """Whether a folder that is allowed as much holds the path: landlock's rules reach all the way down."""
    return any(path.startswith(other + "/") and rights & ~allowed == 0 for other, allowed in others.items())


def attainable(name: str, value: int) -> int:
    """A limit that the container has set lower already stays as it is."""
    _, most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    return value if most == resource.RLIM_INFINITY else min(value, most)


def memory_held(status: str) -> dict[str, int]:
    """What a process has of each sort of memory, in bytes, from proc_pid_status(5)."""
    held = {"VmSize": 0, "VmData": 0, "RssAnon": 0}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in held:
            held[name] = int(value.split()[0]) * 1024
    return held


def enter_zygote(policy: Policy) -> None:
    """In the zygote, once its modules are imported: all of the sandbox that it can live with, which its children have from
    their birth."""
    os.environ.clear()
    os.environ.update(policy.environment)
    if policy.confined:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        for each in policy.filters:
            each.install()
        replace_changes_by_path()


def take_descriptors(fds: list[int]) -> int:
    """Control, stdout and stderr take their places. They came while these were taken, so their own numbers are higher."""
    control, out, err = fds
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(control, CONTROL, inheritable=False)
    for fd in {null, *fds}:
        os.close(fd)
    return CONTROL


def enter(policy: Policy, folder: str, cpu_seconds: int, parent: int) -> None:
    """Puts the sandbox in force, for this process and all it will start."""
    ruleset = leave_zygote(policy, folder, parent, [])
    set_limits(policy.limits)
    limit_processor(cpu_seconds)
    if policy.confined:
        confine(policy, ruleset)
    reseed()


def enter_ahead(policy: Policy, folder: str, parent: int) -> int:
    """The same for a worker that has no run yet: what a device's driver maps must not count as the run's, so the limits of
    memory and time follow. Gives the descriptor that they are told from."""
    status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    kept = fcntl.fcntl(status, fcntl.F_DUPFD_CLOEXEC, FIRST_PATH)
    ruleset = leave_zygote(policy, folder, parent, [kept])
    set_limits({name: value for name, value in policy.limits.items() if name not in ("data", "as")})
    if policy.confined:
        confine(policy, ruleset)
    return kept


def limit_memory(policy: Policy, status: int) -> None:
    """Devices are mapped into far more addresses than there is memory, so these have no limit here."""
    held = memory_held(os.pread(status, 1 << 16, 0).decode())
    os.close(status)
    policy.limits = {name: value for name, value in policy.limits.items() if name != "as"}
    policy.limits["data"] = attainable("data", held["VmData"] + policy.relative_limits["memory"])
    set_limits({"data": policy.limits["data"]})


def begin_ahead(cpu_seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit_processor(int(used.ru_utime + used.ru_stime) + cpu_seconds)
    reseed()


def leave_zygote(policy: Policy, folder: str, parent: int, kept: list[int]) -> int:
    """A session, descriptors, a folder and an environment of its own. Gives landlock's ruleset."""
    # The agent has to see which deleted files a run holds open, from when it is one. Other runs are kept out by landlock, and
    # what the zygote holds is no secret.
    prctl(PR_SET_DUMPABLE, 1)
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise OSError("the zygote is gone")
    ruleset = CONTROL
    if policy.confined:
        # Beside the four and those that are kept it is the one descriptor that is still needed.
        ruleset = CONTROL + 1
        os.dup2(make_ruleset(policy, folder), ruleset, inheritable=False)
    first = ruleset + 1
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 1 << 20)
    # Whoever has to end a run that takes all of the processor comes before it.
    os.nice(10)
    os.umask(0o077)
    os.chdir(os.path.join(folder, "work"))
    set_environment(folder)
    return ruleset


def confine(policy: Policy, ruleset: int) -> None:
    if policy.capabilities:
        drop_capabilities()
    check(libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)
    for last in policy.last_filters:
        last.install()
    if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER or libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        raise OSError("the sandbox is not in force")


def make_ruleset(policy: Policy, folder: str) -> int:
    attributes = RulesetAttributes(
        fs=policy.handled,
        net=TCP if policy.landlock_abi >= 4 else 0,
        scoped=SCOPE if policy.landlock_abi >= 6 else 0,
    )
    # A kernel refuses fields that it does not know only when they are set, so one size serves every ABI.
    ruleset: int = libc.syscall(
        SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0
    )
    check(ruleset, "landlock_create_ruleset")
    own = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    for rule in (*policy.rules, PathBeneath(allowed=RIGHTS["own"] & policy.handled, parent=own)):
        check(
            libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0),
            "landlock_add_rule",
        )
    return ruleset


def set_environment(folder: str) -> None:
    """The rest of it is the zygote's."""
    os.environ["HOME"] = os.path.join(folder, "home")
    os.environ["TMPDIR"] = os.path.join(folder, "tmp")
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # it remembers the zygote's
        tempfile._name_sequence = None  # type: ignore[attr-defined]


def set_limits(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))


def limit_processor(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def replace_changes_by_path() -> None:
    """Landlock restricts neither chmod nor utime, so the filter refuses them by path. By descriptor they are harmless:
    only what landlock lets a run open can be changed. Python's own callers (shutil, tarfile, tempfile) go on working."""
    utime_of_descriptor = os.utime

    def on_descriptor(path: Any, dir_fd: int | None, follow_symlinks: bool, change: Callable[[int], None]) -> None:
        if isinstance(path, int):
            change(path)
            return
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_symlinks else os.O_NOFOLLOW)
        descriptor = os.open(path, flags, dir_fd=dir_fd)
        try:
            change(descriptor)
        finally:
            os.close(descriptor)

    def chmod(path: Any, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        on_descriptor(path, dir_fd, follow_symlinks, lambda descriptor: os.fchmod(descriptor, mode))

    def utime(
        path: Any, times: Any = None, *, dir_fd: int | None = None, follow_symlinks: bool = True, **ns: Any
    ) -> None:
        given = ns if ns else {"times": times}
        on_descriptor(path, dir_fd, follow_symlinks, lambda descriptor: utime_of_descriptor(descriptor, **given))

    os.chmod, os.utime = chmod, utime  # type: ignore[assignment]


def reseed() -> None:
    """Every child starts as a copy of the zygote: without this, all would draw the same numbers. Python's own generator is
    seeded anew by every fork."""
    libc.srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "little")))
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        words = os.urandom(64)
        numpy_random.seed(  # type: ignore[attr-defined]
            [int.from_bytes(words[start : start + 4], "little") for start in range(0, len(words), 4)]
        )
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int.from_bytes(os.urandom(8), "little"))  # type: ignore[attr-defined]


def prctl(option: int, argument: int) -> None:
    check(libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0), f"prctl({option})")


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
