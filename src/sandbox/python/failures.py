"""Failures: an error as the user may see it, with his own frames, the document's line and the limit that was reached.

A failure is a dict: `reason`, `message`, and where they are known `line`, `column`, `traceback` and `limit` (`memory`,
`file`, `processes` or `network`; the agent knows how much each allows and says so).
"""

from __future__ import annotations

import errno
import linecache
import os
import traceback
from typing import Any, Iterator

DOCUMENT = "<document>"
LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 8000

# What the user wrote: the document, and the files of its specifications.
sources = {DOCUMENT}


def remember(source: str, pieces: list[tuple[int, str]]) -> None:
    """So that tracebacks can quote `source`, of which each piece begins at the line given."""
    lines: list[str] = []
    for first, code in sorted(pieces):
        lines.extend("\n" for _ in range(first - 1 - len(lines)))
        lines[first - 1 :] = [line + "\n" for line in code.split("\n")]
    linecache.cache[source] = (sum(map(len, lines)), None, lines, source)
    sources.add(source)


def describe(error: BaseException, source: str = DOCUMENT) -> dict[str, Any]:
    """The error as the user may see it: his frames, the line of `source`."""
    limit = limit_of(error)
    failure: dict[str, Any] = {"reason": "OutOfMemory" if limit == "memory" else "ProgramFailed"}
    if limit is not None:
        failure["limit"] = limit
    try:
        report = traceback.TracebackException.from_exception(error, lookup_lines=True)
        keep_user_frames(report, set())
        text = "".join(report.format())
        failure["message"] = "".join(report.format_exception_only()).strip()[-LONGEST_MESSAGE:]
        failure["traceback"] = text.strip()[-LONGEST_TRACEBACK:]
        if isinstance(error, SyntaxError) and error.filename == source:
            failure["line"], failure["column"] = error.lineno, error.offset
            failure["message"] = f"{type(error).__name__}: {error.msg}"
        elif report.stack:
            frames = [frame for frame in report.stack if frame.filename == source]
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
    mine = [frame for frame in report.stack if frame.filename in sources or frame.filename.startswith(home)]
    report.stack = traceback.StackSummary.from_list(mine)
    for inner in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if inner is not None:
            keep_user_frames(inner, seen)


def limit_of(error: BaseException) -> str | None:
    """The limit of the sandbox that an error comes from, as far as it shows."""
    for link in chain(error):
        if isinstance(link, MemoryError):
            return "memory"
        if isinstance(link, OSError) and link.errno == errno.EFBIG:
            return "file"
        if isinstance(link, OSError) and link.errno == errno.EAGAIN and (raised_in(link, "subprocess.py") or forks(link)):
            return "processes"
        if isinstance(link, RuntimeError) and "start new thread" in str(link):
            return "processes"
        if isinstance(link, OSError) and type(link).__name__ == "gaierror":
            return "network"
        if isinstance(link, PermissionError) and link.errno == errno.EPERM and raised_in(link, "socket.py"):
            return "network"
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came from."""
    link: BaseException | None = error
    for _ in range(16):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def raised_in(error: BaseException, file: str) -> bool:
    frame = error.__traceback__
    while frame is not None:
        if os.path.basename(frame.tb_frame.f_code.co_filename) == file:
            return True
        frame = frame.tb_next
    return False


def forks(error: BaseException) -> bool:
    stack = traceback.extract_tb(error.__traceback__)
    return bool(stack) and "fork" in (stack[-1].line or "")
