"""Programs and libraries of Debian packages. Each probe does on a small scale what the build will do, because a file
of the right name proves nothing: `libclang-cpp.so` is not libclang."""

import ctypes
import glob
import os
import platform
import tempfile
import tomllib
from pathlib import Path

from .command import Failed, run
from .finding import INSTALL, MISSING, OK, Finding

SETUP = Path(__file__).resolve().parent.parent
# Where libclang lies, in the order in which bindgen looks: the variable, llvm-config, then these.
LIBCLANG_PLACES = ["/usr/lib/llvm-*/lib", "/usr/lib64", "/usr/lib", "/usr/lib/*-linux-gnu", "/usr/local/lib*"]
LIBCLANG_NAMES = ["libclang.so", "libclang-*.so", "libclang.so.*", "libclang-*.so.*"]


def compile_and_run(compiler, *flags, source, static=False):
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        program = Path(folder) / "probe"
        run(*compiler, "-x", "c", "-", "-o", program, *(["-static"] if static else []), *flags, text=source)
        run(program)


def musl():
    """Links and runs a static program, as the three programs of the project are linked."""
    compile_and_run(["musl-gcc"], source="#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n", static=True)
    return "musl-gcc links a static program"


def gcc():
    """Compiles under both names, without the C library. Debian 13 has the compiler without them in another package."""
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        for compiler in ("gcc", "cc"):
            run(compiler, "-x", "c", "-c", "-", "-o", Path(folder) / "probe.o", text="int probe;\n")
    return f"gcc {run('gcc', '-dumpfullversion').strip()}"


def libc():
    """Links and runs a program, as build scripts and tests are linked; and a static one, as the pause image is."""
    source = "#include <math.h>\n#include <stdio.h>\nint main(int n, char **v) { (void)v; return sqrt(n) > 9; }\n"
    compile_and_run(["cc"], "-lm", source=source)
    compile_and_run(["gcc"], "-lm", source=source, static=True)
    return "cc links against the C library"


def cmake():
    """Configures and builds a C project with make, as liboqs is built."""
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        source, build = Path(folder) / "source", Path(folder) / "build"
        source.mkdir()
        (source / "probe.c").write_text("int probe(void) { return 0; }\n", encoding="utf-8")
        (source / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.13)\nproject(probe C ASM)\nadd_library(probe STATIC probe.c)\n",
            encoding="utf-8",
        )
        run("cmake", "-S", source, "-B", build, "-G", "Unix Makefiles", seconds=60)
        run("cmake", "--build", build, seconds=60)
    return run("cmake", "--version").splitlines()[0]


def libclang_candidates():
    folders = [os.environ["LIBCLANG_PATH"]] if os.environ.get("LIBCLANG_PATH") else []
    try:
        folders.append(run("llvm-config", "--libdir").strip())
    except Failed:
        pass
    for place in LIBCLANG_PLACES:
        folders += sorted(glob.glob(place), reverse=True)
    for folder in folders:
        if os.path.isfile(folder):
            yield folder
        for name in LIBCLANG_NAMES:
            yield from sorted(glob.glob(f"{folder}/{name}"))


def parse(library, header):
    """The number of complaints of libclang about a header, which is what bindgen asks it."""
    library.clang_createIndex.restype = ctypes.c_void_p
    library.clang_parseTranslationUnit.restype = ctypes.c_void_p
    library.clang_parseTranslationUnit.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int,
        ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint,
    ]  # fmt: skip
    library.clang_getNumDiagnostics.argtypes = [ctypes.c_void_p]
    index = library.clang_createIndex(0, 0)
    arguments = [b"--target=x86_64-unknown-linux-musl", b"-I/usr/include/x86_64-linux-musl"]
    unit = library.clang_parseTranslationUnit(
        index, str(header).encode(), (ctypes.c_char_p * len(arguments))(*arguments), len(arguments), None, 0, 0
    )
    return library.clang_getNumDiagnostics(unit) if unit else 1


def libclang():
    """Loads libclang where bindgen looks for it, and has it parse a header that needs its own <stddef.h>."""
    complaint = "no libclang where bindgen looks for it"
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        header = Path(folder) / "probe.h"
        header.write_text("#include <stddef.h>\n#include <stdint.h>\nsize_t probe(uint8_t *bytes);\n", encoding="utf-8")
        for path in libclang_candidates():
            try:
                library = ctypes.CDLL(path)
                library.clang_createIndex  # noqa: B018 raises when the library is not libclang
            except (OSError, AttributeError):
                continue
            if not parse(library, header):
                return f"{path} parses a header"
            complaint = f"{path} cannot parse a header with <stddef.h> and <stdint.h>"
    raise Failed(complaint)


def seccomp():
    """Links a program against libseccomp, as runc is linked."""
    flags = run("pkg-config", "--cflags", "--libs", "libseccomp").split()
    source = "#include <seccomp.h>\nint main(void) { return seccomp_version() == 0; }\n"
    compile_and_run(["gcc"], *flags, source=source)
    return "runc can be linked against libseccomp"


def pkg_config():
    return f"pkg-config {run('pkg-config', '--version').strip()}"


def ip():
    return run("ip", "-Version").strip()


def nft():
    return run("nft", "--version").strip()


def sysctl():
    run("sysctl", "-n", "kernel.ostype")
    return run("sysctl", "--version").strip()


def openssl():
    """Makes a key of the kind that the local cluster's certificates use."""
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout")
    return run("openssl", "version").strip()


def buildah():
    return run("buildah", "--version").strip()


def mmdebstrap():
    return run("mmdebstrap", "--version").strip()


def pip():
    """The pip of the interpreter that `python3` is, which downloads the wheels of the images."""
    return " ".join(run("python3", "-m", "pip", "--version").split()[:2])


def jq():
    return run("jq", "--version").strip()


def venv():
    with tempfile.TemporaryDirectory(prefix="chimera-probe-") as folder:
        run("python3", "-m", "venv", folder, seconds=120)
    return "python3 makes a virtual environment"


PROBES = {
    "build": {"gcc": gcc, "musl": musl, "libc": libc, "cmake": cmake, "libclang": libclang},
    "cluster": {
        "pkg-config": pkg_config, "seccomp": seccomp, "ip": ip, "nft": nft, "sysctl": sysctl, "openssl": openssl,
    },
    "images": {"buildah": buildah, "mmdebstrap": mmdebstrap, "pip": pip},
    "tests": {"jq": jq},
    "bench": {"venv": venv},
}  # fmt: skip


def release():
    """The machine's release as Debian names it, `bookworm` for example; empty when it cannot be told."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def package(part, probe, suite=None):
    """Debian's name of the package that a probe needs; None when packages.toml has none."""
    names = tomllib.loads((SETUP / "packages.toml").read_text(encoding="utf-8"))
    name = names.get(part, {}).get(probe)
    return name.get(suite or release()) if isinstance(name, dict) else name


def findings(parts, may_install):
    """One finding for each program that the parts need."""
    for part in parts:
        for probe, look in PROBES.get(part, {}).items():
            name = package(part, probe)
            try:
                yield Finding(probe, OK, look())
            except Failed as failed:
                if name is None:
                    yield Finding(probe, MISSING, str(failed), f"setup/packages.toml names no package for {probe}")
                elif may_install:
                    yield Finding(probe, INSTALL, str(failed), packages=(name,))
                else:
                    yield Finding(probe, MISSING, str(failed), packages=(name,))
