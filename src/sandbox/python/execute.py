"""Execution: runs the blocks of one document, those in Python in one namespace as a notebook does.

Everything here shares a process with user code, which may forge any message. The agent believes nothing of it beyond
this one run. Frames on the control socket: one byte of kind (`J` JSON, `O` outputs), four bytes of length (big-endian).
Each word about a block is answered with one byte, once the agent has read what was printed before it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import types
from typing import Any, Iterable

import _chimera_circuits as circuits
import _chimera_programs as programs
from _chimera_failures import DOCUMENT, describe, remember
from _chimera_specifications import AFTER, BEFORE, Specification
from _chimera_values import NotJson, encode, harvest, merge, so_far

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def languages() -> list[str]:
    """What can be run here."""
    return ["python", *programs.offered(), *circuits.offered()]


class Streams:
    """Python's standard streams, made in the zygote for its children. They ask their descriptors what they are when they are
    made, so there have to be pipes at 1 and 2, as in a run."""

    def __init__(self) -> None:
        self.input = open(0, encoding="utf-8")
        self.output = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        self.error = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def serve_run(control: int, streams: Streams, signals_confined: bool) -> int:
    """Reads the job, runs it, reports. The exit status of the process."""
    tell(control, {"kind": "entered"})
    job = json.loads(read_frame(control))
    sys.stdin, sys.stdout, sys.stderr = streams.input, streams.output, streams.error
    sys.argv = [DOCUMENT]
    remember(DOCUMENT, [(block["line"], block["code"]) for block in job["blocks"]])
    run = Run(control, job, signals_confined)
    failure = run.blocks() or run.end()
    if failure is None:
        return 0
    tell(control, {"kind": "failed", **failure})
    return 1


class Run:
    """One document under way."""

    def __init__(self, control: int, job: dict[str, Any], signals_confined: bool) -> None:
        self.control = control
        self.job = job
        self.signals_confined = signals_confined
        self.folder = os.path.dirname(os.getcwd())
        self.process = os.getpid()
        self.succeeded: set[str] = set()
        self.specifications = [Specification(given) for given in job["specifications"]]
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.namespace = module.__dict__
        self.namespace["inputs"] = self.inputs()

    def inputs(self) -> dict[str, Any]:
        """A copy each: Python blocks may change theirs."""
        inputs: dict[str, Any] = json.loads(self.job["inputs"])
        return inputs

    def blocks(self) -> dict[str, Any] | None:
        """Runs every block that can be run; what ended the run, if something did."""
        if failure := self.verify_before():
            return failure
        for index, block in enumerate(self.job["blocks"]):
            missing = [name for name in block["needs"] if name not in self.succeeded]
            if missing:
                self.tell_block(index, "skipped", {"message": f"not run: it needs {missing[0]}, which did not succeed"})
                continue
            self.tell_block(index, "running")
            failure = self.run_block(block)
            if os.getpid() != self.process:
                # A process that the document forked came out of its block: it is not the run.
                os._exit(1 if failure else 0)
            flush()
            if failure is None:
                self.succeeded.add(block["name"])
                self.tell_block(index, "succeeded")
            elif block["allow_failure"]:
                self.tell_block(index, "failed", failure)
            else:
                return failure
        return None

    def run_block(self, block: dict[str, Any]) -> dict[str, Any] | None:
        """None when the block came to its end, else what went wrong."""
        if block["language"] == "python":
            return run_python(block, self.namespace)
        try:
            if block["language"] == "openqasm":
                given, failure = circuits.run(block, self.inputs())
            else:
                results = so_far(self.job["outputs"], self.namespace)
                given, failure = programs.run(block, self.folder, self.inputs(), results, self.signals_confined)
            if failure is None:
                merge(given, self.namespace)
            return failure
        except NotJson as error:
            return {"reason": "OutputsUnreadable", "message": str(error)}
        except OSError as error:
            return describe(error)

    def end(self) -> dict[str, Any] | None:
        """Harvests the outputs, checks them and hands them over."""
        try:
            outputs = harvest(self.job["outputs"], self.namespace)
        except NotJson as error:
            return {"reason": "OutputsUnreadable", "message": str(error)}
        except MemoryError:
            message = "out of memory while reading the outputs"
            return {"reason": "OutOfMemory", "limit": "memory", "message": message}
        values = {"inputs": self.inputs(), "outputs": outputs}
        for specification in self.specifications:
            if failure := self.verdict(specification.check(AFTER, values)):
                return failure
        write_frame(self.control, b"O", encode(outputs))
        return None

    def verify_before(self) -> dict[str, Any] | None:
        values = {"inputs": self.inputs()}
        for specification in self.specifications:
            for failures in (specification.load(), specification.check(BEFORE, values)):
                if failure := self.verdict(failures):
                    return failure
        return None

    def verdict(self, failures: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """The first failure where verification is strict; elsewhere each is a line of standard error."""
        for failure in failures:
            if os.getpid() != self.process:
                os._exit(1)
            if self.job["strict"]:
                return failure
            print(f"verification: {failure['message']}", file=sys.stderr, flush=True)
        return None

    def tell_block(self, index: int, state: str, failure: dict[str, Any] | None = None) -> None:
        tell(self.control, {"kind": "block", "index": index, "state": state, **(failure or {})})
        read_exactly(self.control, 1)


def run_python(block: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any] | None:
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


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a document may have closed or replaced it
            pass


def tell(control: int, message: dict[str, Any]) -> None:
    write_frame(control, b"J", ENCODER.encode(message).encode("utf-8", "replace"))


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
