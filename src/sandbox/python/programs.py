"""Programs: runs a block in bash or JavaScript as a process of its own, inside the sandbox of its run.

The block finds the inputs and the outputs so far as files, and gives outputs as a file; `docs/documents.md` is the
contract. Its standard output and error are the run's own; of the latter the end is kept to say what went wrong.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import tempfile
import threading
from typing import Any

from _chimera_values import NotJson, as_key

# Looked for in these folders alone: what is found here is inside of what the sandbox lets a run execute.
FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
INTERPRETERS = {"bash": "bash", "javascript": "node"}
KEPT_ERROR = 8000
LONGEST_OUTPUTS = 8 << 20
SHOWN_LINES = 20
# From the end of the program to the end of what it printed, unless a process that it left behind holds the pipe.
LAST_WORDS = 0.5

# On one line, so that the code's own lines count from the first.
BASH = 'eval "$(<"$CHIMERA_BLOCK/prelude")"; eval "$(<"$CHIMERA_BLOCK/code")"'
PRELUDE = r"""
trap 'chimera_failed "$LINENO"' ERR
chimera_failed() {
  local line=$1 depth=1
  while [[ ${FUNCNAME[depth]-} == @(input|result|output|chimera_value) ]]; do
    line=${BASH_LINENO[depth]}
    depth=$((depth + 1))
  done
  printf %s "$line" >"$CHIMERA_BLOCK/line"
}
chimera_value() {
  if [[ -f "$CHIMERA_BLOCK/$1/$2" ]]; then
    printf '%s\n' "$(<"$CHIMERA_BLOCK/$1/$2")"
  else
    printf '%s: there is no %s of this name\n' "$2" "${1%s}" >&2
    return 1
  fi
}
input() { chimera_value inputs "$1"; }
result() { chimera_value results "$1"; }
output() {
  if (($# != 2)); then
    printf 'usage: output NAME VALUE\n' >&2
    return 2
  fi
  printf '%s\0%s\0' "$1" "$2" >>"$CHIMERA_BLOCK/outputs.list"
}
"""

NODE = r"""
const fs = require("node:fs");
const read = (name) => JSON.parse(fs.readFileSync(process.env[name], "utf8"));
globalThis.inputs = read("CHIMERA_INPUTS");
globalThis.results = read("CHIMERA_RESULTS");
globalThis.outputs = {};
globalThis.require = require("node:module").createRequire(process.cwd() + "/");
process.on("exit", () => {
  if (Object.keys(globalThis.outputs).length > 0) {
    fs.writeFileSync(process.env.CHIMERA_OUTPUTS, JSON.stringify(globalThis.outputs));
  }
});
"""

LINE = {
    "bash": re.compile(r"^document: (?:eval: )?line (\d+): ?(.*)$", re.MULTILINE),
    "javascript": re.compile(r"\bdocument:(\d+)(?::(\d+))?"),
}
LIMITS = {
    "memory": re.compile(r"annot allocate|memory exhausted|heap out of memory|[Oo]ut of memory|MemoryError|bad_alloc"),
    "file": re.compile(r"File too large|File size limit exceeded|EFBIG"),
    "processes": re.compile(r"fork: .*Resource temporarily unavailable|uv_thread_create|spawn \S+ EAGAIN"),
    "network": re.compile(
        r"(socket|connect|/dev/(tcp|udp)/).*(not permitted|not implemented|EPERM)|(EPERM|EAI_\w+).*(connect|socket|getaddrinfo)"
        r"|getaddrinfo|[Cc]ould not resolve|name resolution|Name or service not known"
    ),
}


def find(interpreter: str) -> str | None:
    """The path of a language's program, if it is there."""
    for folder in FOLDERS:
        path = os.path.join(folder, interpreter)
        if os.access(path, os.X_OK):
            return path
    return None


def offered() -> list[str]:
    return [language for language, interpreter in INTERPRETERS.items() if find(interpreter)]


def run(
    block: dict[str, Any], folder: str, inputs: dict[str, Any], results: dict[str, Any], signals_confined: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the block gave, and what went wrong if something did. `folder` is the run's own."""
    place = tempfile.mkdtemp(prefix="block-", dir=os.path.join(folder, "tmp"))
    environment = write_exchange(block, place, inputs, results)
    command = command_of(block, place)
    process = subprocess.Popen(  # noqa: S603 - the purpose of this process
        command, cwd=os.path.join(folder, "work"), env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    end = Tail(process)
    try:
        code = process.wait(block["timeout"])
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        if signals_confined:
            end_every_other_process()
        message = f"block {block['name']} took longer than {block['timeout']} s"
        return {}, {"reason": "TimedOut", "message": message, "line": block["line"], "traceback": end.text(place)}
    text = end.text(place)
    if code != 0:
        return {}, describe(block, code, text, place)
    try:
        return read_outputs(place), None
    except NotJson as error:
        return {}, {"reason": "OutputsUnreadable", "message": f"block {block['name']}: {error}", "line": block["line"]}


def write_exchange(
    block: dict[str, Any], place: str, inputs: dict[str, Any], results: dict[str, Any]
) -> dict[str, str]:
    """The files that the block finds, and the environment that names them."""
    environment = dict(os.environ)
    environment["CHIMERA_BLOCK"] = place
    environment["CHIMERA_OUTPUTS"] = os.path.join(place, "outputs.json")
    for name, values in (("inputs", inputs), ("results", results)):
        path = os.path.join(place, name + ".json")
        write(path, json.dumps(values, ensure_ascii=False))
        environment["CHIMERA_" + name.upper()] = path
        if block["language"] == "bash":
            os.mkdir(os.path.join(place, name))
            for key, value in values.items():
                if key not in ("", ".", "..") and "/" not in key and "\0" not in key and len(key.encode()) < 256:
                    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                    write(os.path.join(place, name, key), text)
    return environment


def command_of(block: dict[str, Any], place: str) -> list[str]:
    """Empty lines before the code give it the document's own line numbers."""
    code = "\n" * (block["line"] - 1) + block["code"]
    path = find(INTERPRETERS[block["language"]]) or INTERPRETERS[block["language"]]
    if block["language"] == "bash":
        write(os.path.join(place, "prelude"), PRELUDE)
        write(os.path.join(place, "code"), code)
        return [path, "-eEu", "-o", "pipefail", "-c", BASH, "document"]
    prelude, module = os.path.join(place, "prelude.cjs"), os.path.join(place, "document.mjs")
    write(prelude, NODE)
    write(module, code)
    return [path, "--require", prelude, module]


class Tail:
    """Hands a program's standard error on to the run's, and keeps its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self.pipe = process.stderr.fileno()
        self.stream = process.stderr  # Kept, so that the descriptor stays open for as long as the thread reads.
        self.kept = b""
        self.thread = threading.Thread(target=self.pump, daemon=True)
        self.thread.start()

    def pump(self) -> None:
        while data := os.read(self.pipe, 1 << 16):
            self.kept = (self.kept + data)[-KEPT_ERROR:]
            view = memoryview(data)
            while view:
                view = view[os.write(2, view) :]

    def text(self, place: str) -> str:
        self.thread.join(LAST_WORDS)
        text = self.kept.decode("utf-8", "replace")
        text = re.sub(r"(file://)?" + re.escape(place) + r"/document\.mjs", "document", text)
        return "\n".join(text.strip().splitlines()[-SHOWN_LINES:])


def describe(block: dict[str, Any], code: int, text: str, place: str) -> dict[str, Any]:
    """What went wrong, in the document's own lines."""
    language = block["language"]
    ended = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
    found = LINE[language].findall(text)
    said = error_line(language, text)
    failure: dict[str, Any] = {
        "reason": "ProgramFailed",
        "message": f"{INTERPRETERS[language]} {ended}" + (f": {said}" if said else ""),
        "traceback": text,
    }
    line = line_of(language, found, place)
    if line is not None and line >= block["line"]:
        failure["line"] = line
    if language == "javascript" and found and found[0][1]:
        failure["column"] = int(found[0][1])
    for limit, pattern in LIMITS.items():
        if pattern.search(text) or (limit == "file" and abs(code) in (signal.SIGXFSZ, 128 + signal.SIGXFSZ)):
            failure["limit"] = limit
            break
    return failure


def line_of(language: str, found: list[tuple[str, ...]], place: str) -> int | None:
    if language == "bash":
        try:
            with open(os.path.join(place, "line"), encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return int(found[-1][0]) if found else None
    return int(found[0][0]) if found else None


def error_line(language: str, text: str) -> str:
    """The one line that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if language == "javascript":
        named = [line for line in lines if re.match(r"(Uncaught )?\w*(Error|Exception)\b", line)]
        lines = named[:1] or [line for line in lines if not line.startswith("Node.js v")]
    if not lines:
        return ""
    match = LINE["bash"].match(lines[-1]) if language == "bash" else None
    return (match[2] if match else lines[-1])[:500]


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_outputs(place: str) -> dict[str, Any]:
    """What the block wrote to CHIMERA_OUTPUTS, and what it gave by `output`."""
    given: dict[str, Any] = {}
    try:
        text = read_file(os.path.join(place, "outputs.json"))
        given = {} if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotJson(f"what it wrote to CHIMERA_OUTPUTS is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise NotJson("what it wrote to CHIMERA_OUTPUTS is not one JSON object")
    pairs = read_file(os.path.join(place, "outputs.list")) or b""
    parts = pairs.decode("utf-8", "replace").split("\0")[:-1]
    for name, value in zip(parts[::2], parts[1::2], strict=False):
        given[as_key(name, "outputs")] = json_or_text(value)
    return given


def read_file(path: str) -> bytes | None:
    """What is in an ordinary file of bounded length, and in nothing else that may lie there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotJson(f"{os.path.basename(path)} cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotJson(f"{os.path.basename(path)} is not an ordinary file")
        with open(descriptor, "rb", closefd=False) as file:
            text = file.read(LONGEST_OUTPUTS + 1)
    finally:
        os.close(descriptor)
    if len(text) > LONGEST_OUTPUTS:
        raise NotJson(f"{os.path.basename(path)} has more than {LONGEST_OUTPUTS} bytes")
    return text


def json_or_text(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=lambda _: value)
    except (ValueError, RecursionError):
        return value


def end_every_other_process() -> None:
    """What a program leaves behind when it is stopped. Only where a signal cannot leave the run: the zygote, which has
    the same user, is out of its reach exactly then."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        try:
            os.kill(-1, signal.SIGKILL)
        except (PermissionError, ProcessLookupError):
            pass


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        file.write(text)
