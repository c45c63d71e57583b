"""Execution: runs the blocks of one document in one namespace, as a notebook does, and harvests the outputs.

Everything here shares a process with user code, which may forge any message. The agent believes nothing of it beyond
this one run. Frames on the control socket: one byte of kind (`J` JSON, `O` outputs), four bytes of length (big-endian).
"""

from __future__ import annotations

import json
import linecache
import math
import os
import struct
import sys
import traceback
import types
from typing import Any

DOCUMENT = "<document>"
DEEPEST = 64
LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 8000


class NotJson(Exception):
    """A value that cannot become JSON; the text says which and why."""


def serve_run(control: int) -> int:
    """Reads the job, runs it, reports. The exit status of the process."""
    tell(control, {"kind": "entered"})
    job = json.loads(read_frame(control))
    sys.stdin = open(0, encoding="utf-8")
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.argv = [DOCUMENT]
    remember_lines(job["blocks"])
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    namespace = module.__dict__
    namespace["inputs"] = json.loads(job["inputs"])
    process = os.getpid()
    for index, block in enumerate(job["blocks"]):
        tell(control, {"kind": "block", "index": index, "state": "running"})
        failure = run_block(block, namespace)
        if os.getpid() != process:
            # A process that the document forked came out of its block: it is not the run.
            os._exit(1 if failure else 0)
        flush()
        if failure is not None:
            tell(control, {"kind": "failed", "index": index, **failure})
            return 1
        tell(control, {"kind": "block", "index": index, "state": "succeeded"})
    try:
        outputs = harvest(job["outputs"], namespace)
    except NotJson as error:
        tell(control, {"kind": "failed", "reason": "OutputsUnreadable", "message": str(error)})
        return 1
    except MemoryError:
        tell(control, {"kind": "failed", "reason": "OutOfMemory", "message": "out of memory while reading the outputs"})
        return 1
    write_frame(control, b"O", outputs)
    return 0


def run_block(block: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any] | None:
    """None when the block came to its end, else what went wrong."""
    try:
        # Empty lines before the code give it the document's own line numbers.
        code = compile("\n" * (block["line"] - 1) + block["code"], DOCUMENT, "exec", dont_inherit=True)
        exec(code, namespace)  # noqa: S102 - the purpose of this process
    except SystemExit as error:
        if error.code is None or error.code == 0:
            return None
        return describe(error)
    except BaseException as error:  # noqa: BLE001
        return describe(error)
    return None


def describe(error: BaseException) -> dict[str, Any]:
    """The error as the user may see it: his frames, the document's line."""
    reason = "OutOfMemory" if isinstance(error, MemoryError) else "ProgramFailed"
    failure: dict[str, Any] = {"reason": reason}
    try:
        report = traceback.TracebackException.from_exception(error, lookup_lines=True)
        keep_user_frames(report, set())
        text = "".join(report.format())
        failure["message"] = "".join(report.format_exception_only()).strip()[-LONGEST_MESSAGE:]
        failure["traceback"] = text.strip()[-LONGEST_TRACEBACK:]
        if isinstance(error, SyntaxError) and error.filename == DOCUMENT:
            failure["line"], failure["column"] = error.lineno, error.offset
            failure["message"] = f"{type(error).__name__}: {error.msg}"
        elif report.stack:
            frames = [frame for frame in report.stack if frame.filename == DOCUMENT]
            if frames:
                failure["line"] = frames[-1].lineno
    except BaseException:  # noqa: BLE001 - an exception whose own text raises
        failure.setdefault("message", f"{type(error).__name__} (its text cannot be shown)")
    return failure


def keep_user_frames(report: traceback.TracebackException, seen: set[int]) -> None:
    if id(report) in seen:
        return
    seen.add(id(report))
    home = os.path.dirname(os.environ.get("HOME", "/nonexistent")) + os.sep
    mine = [frame for frame in report.stack if frame.filename == DOCUMENT or frame.filename.startswith(home)]
    report.stack = traceback.StackSummary.from_list(mine)
    for inner in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if inner is not None:
            keep_user_frames(inner, seen)


def remember_lines(blocks: list[dict[str, Any]]) -> None:
    """So that tracebacks can quote the document."""
    lines: list[str] = []
    for block in blocks:
        lines.extend("\n" for _ in range(block["line"] - 1 - len(lines)))
        lines[block["line"] - 1 :] = [line + "\n" for line in block["code"].split("\n")]
    linecache.cache[DOCUMENT] = (sum(map(len, lines)), None, lines, DOCUMENT)


def harvest(names: list[str] | None, namespace: dict[str, Any]) -> bytes:
    """The globals that Output_Schema names, each else from the dict `outputs`; without a schema, that dict."""
    declared = namespace.get("outputs")
    found: dict[str, Any] = {}
    if names is None:
        if isinstance(declared, dict):
            found = declared
        elif declared is not None:
            raise NotJson(f"`outputs` is a {type(declared).__name__}; it must be a dict")
    else:
        for name in names:
            if name in namespace:
                found[name] = namespace[name]
            elif isinstance(declared, dict) and name in declared:
                found[name] = declared[name]
    plain: dict[str, Any] = {}
    for name, value in found.items():
        key = as_key(name, "outputs")
        plain[key] = as_json(value, f"`{key}`", 1)
        try:
            # One at a time, so that an error can name the variable (lone surrogates have no UTF-8).
            json.dumps(plain[key], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise NotJson(f"`{key}` holds text that is not Unicode") from None
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def as_json(value: Any, where: str, depth: int) -> Any:
    """`value` in JSON's own types. numpy, torch and pandas values are read through their `tolist`."""
    if depth > DEEPEST:
        raise NotJson(f"{where} is nested more than {DEEPEST} deep")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotJson(f"{where} is {value}, which JSON has no number for")
        # JSON has one kind of number; a cluster's API writes 1.0 as 1. As signed here, so it can be read back there.
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, dict):
        plain = {}
        for key, item in value.items():
            name = as_key(key, where)
            plain[name] = as_json(item, f"{where}[{name!r}]", depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [as_json(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    convert = getattr(value, "tolist", None)
    if callable(convert) and not isinstance(value, type):
        try:
            plain_value = convert()
        except Exception as error:  # noqa: BLE001
            raise NotJson(f"{where} is a {type(value).__name__} and cannot be read: {error}") from None
        if type(plain_value) is not type(value):
            return as_json(plain_value, where, depth + 1)
    raise NotJson(f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which is not JSON")


def as_key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(int(key))
    raise NotJson(f"{where} has a key of type {type(key).__name__}; JSON's keys are text")


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a document may have closed or replaced it
            pass


def tell(control: int, message: dict[str, Any]) -> None:
    write_frame(control, b"J", json.dumps(message, separators=(",", ":")).encode())


def write_frame(control: int, kind: bytes, body: bytes) -> None:
    view = memoryview(kind + struct.pack("!I", len(body)) + body)
    while view:
        view = view[os.write(control, view) :]


def read_frame(control: int) -> bytes:
    _, length = struct.unpack("!cI", read_exactly(control, 5))
    return read_exactly(control, length)


def read_exactly(control: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.read(control, min(length, 1 << 20))
        if not part:
            raise EOFError("the agent closed the control socket")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
