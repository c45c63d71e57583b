"""Specifications: Python modules with conditions that must hold before the first block and after the last.

A function whose name begins with `pre` or `requires` is a precondition, with `post` or `ensures` a postcondition. It
takes, by name, any of `inputs` and (afterwards) `outputs`. It fails by raising, or by a result that is false but not
None.
"""

from __future__ import annotations

import copy
import inspect
import types
from typing import Any, Callable, Iterator

from _chimera_failures import describe, remember

BEFORE = ("pre", "requires")
AFTER = ("post", "ensures")


class Specification:
    """One module, in a namespace of its own."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.name: str = given["name"]
        # Where the text is part of the document, its lines are the document's.
        self.embedded = given["line"] is not None
        self.first: int = given["line"] or 1
        self.code: str = given["code"]
        self.namespace: dict[str, Any] = types.ModuleType(self.name.removesuffix(".py")).__dict__

    def load(self) -> Iterator[dict[str, Any]]:
        """Runs the module; gives what is wrong with it."""
        remember(self.name, [(self.first, self.code)])
        try:
            exec(compile("\n" * (self.first - 1) + self.code, self.name, "exec", dont_inherit=True), self.namespace)
        except BaseException as error:  # noqa: BLE001
            yield self.failure(error, None)

    def check(self, prefixes: tuple[str, ...], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Calls the conditions of one sort, in their order; gives those that do not hold."""
        for name, function in list(self.namespace.items()):
            mine = inspect.isfunction(function) and function.__code__.co_filename == self.name
            if not mine or not name.startswith(prefixes):
                continue
            try:
                result = function(**arguments(function, values))
                holds = result is None or bool(result)
            except BaseException as error:  # noqa: BLE001
                yield self.failure(error, function)
            else:
                if not holds:
                    yield self.told(function.__code__.co_firstlineno, name, f"gave {result!r:.200}", "")

    def failure(self, error: BaseException, function: Callable[..., Any] | None) -> dict[str, Any]:
        described = describe(error, self.name)
        line = described.get("line") or (function.__code__.co_firstlineno if function else self.first)
        name = function.__name__ if function else None
        return self.told(line, name, described["message"], described.get("traceback", ""))

    def told(self, line: int, function: str | None, what: str, traceback: str) -> dict[str, Any]:
        where = f"{self.name}, line {line}" + (f", {function}" if function else "")
        failure = {"reason": "VerificationFailed", "message": f"{where}: {what}", "traceback": traceback}
        return {**failure, "line": line} if self.embedded else failure


def arguments(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Copies, so that a condition changes nothing of the run."""
    chosen = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in values:
            chosen[name] = copy.deepcopy(values[name])
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise TypeError(f"a condition takes {' and '.join(values)}, and this one wants `{name}`")
    return chosen
