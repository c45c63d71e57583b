"""Circuits: runs a block in OpenQASM 2 or 3: parsed by Qiskit, simulated by Aer, its counts are an output."""

from __future__ import annotations

import importlib.machinery
import re
import sys
from typing import Any

from _chimera_failures import chain, describe

NEEDED = ("qiskit", "qiskit_aer")
SHOTS = 1024
MOST_SHOTS = 10_000_000
VERSION = re.compile(r"^\s*OPENQASM\s+(\d+)", re.MULTILINE)
# `<input>:14,5: …` of qasm2, `14,0: …` of qasm3, `L12:C0: …` of its grammar. Columns count from 0.
PLACE = re.compile(r"^(?:<input>:|L)?(\d+)(?:,|:C)(\d+): (.*)", re.DOTALL)


def offered() -> list[str]:
    found = all(importlib.machinery.PathFinder.find_spec(name, sys.path) for name in NEEDED)
    return ["openqasm"] if found else []


def run(block: dict[str, Any], inputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The counts under the block's name, and what went wrong if something did."""
    try:
        circuit = parse("\n" * (block["line"] - 1) + block["code"])
    except Exception as error:  # noqa: BLE001
        return {}, parse_failure(error, block)
    try:
        return {block["output"]: simulate(circuit, inputs)}, None
    except Exception as error:  # noqa: BLE001
        failure = describe(error)
        failure.setdefault("line", block["line"])
        if "nsufficient memory" in failure["message"]:
            failure["limit"] = "memory"
        return {}, failure


def parse(code: str) -> Any:
    version = VERSION.search(re.sub(r"//.*", "", code))
    if version is not None and version[1] == "2":
        from qiskit import qasm2

        return qasm2.loads(code, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    from qiskit import qasm3

    return qasm3.loads(code)


def parse_failure(error: Exception, block: dict[str, Any]) -> dict[str, Any]:
    """The parsers say where, each in its own way."""
    text = str(getattr(error, "message", None) or error).strip().strip("'\"")
    line, column = block["line"], None
    if match := PLACE.match(text):
        line, column, text = int(match[1]), int(match[2]) + 1, match[3]
    elif token := offending_token(error):
        line, column, text = token.line, token.column + 1, f"`{token.text}` is not expected here"
    message = f"OpenQASM: {text or type(error).__name__}"
    failure = {"reason": "ProgramFailed", "message": message, "line": line, "traceback": message}
    return failure if column is None else {**failure, "column": column}


def offending_token(error: BaseException) -> Any:
    for link in chain(error):
        for candidate in (link, *link.args):
            token = getattr(candidate, "offendingToken", None)
            if token is not None:
                return token
    return None


def simulate(circuit: Any, inputs: dict[str, Any]) -> dict[str, int]:
    from qiskit import transpile
    from qiskit_aer import AerSimulator

    if "measure" not in circuit.count_ops():
        raise ValueError("the circuit measures nothing, so there is nothing to count")
    simulator = AerSimulator()
    result = simulator.run(
        transpile(circuit, simulator, optimization_level=0),
        shots=whole("shots", inputs.get("shots", SHOTS), 1, MOST_SHOTS),
        seed_simulator=None if inputs.get("seed") is None else whole("seed", inputs["seed"], 0, 2**63 - 1),
    ).result()
    if not result.success:
        raise RuntimeError(f"the simulation failed: {result.status}")
    return {state: int(count) for state, count in sorted(result.get_counts().items())}


def whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"the input `{name}` must be a whole number from {least} to {most}")
    return value
