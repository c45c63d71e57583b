"""Values: what of a run's variables becomes JSON, and how."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 64
LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**64 - 1


class NotJson(Exception):
    """A value that cannot become JSON; the text says which and why."""


def harvest(names: list[str] | None, namespace: dict[str, Any]) -> dict[str, Any]:
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
    return plain


def so_far(names: list[str] | None, namespace: dict[str, Any]) -> dict[str, Any]:
    """What the next block finds: the dict `outputs`, and the globals that Output_Schema names."""
    declared = isinstance(namespace.get("outputs"), dict)
    return {**(harvest(None, namespace) if declared else {}), **harvest(names or [], namespace)}


def merge(given: dict[str, Any], namespace: dict[str, Any]) -> None:
    """Puts what a block of another language gave into the dict `outputs`, which is made if it is not there."""
    outputs = namespace.setdefault("outputs", {})
    if not isinstance(outputs, dict):
        raise NotJson(f"`outputs` is a {type(outputs).__name__}; it must be a dict")
    outputs.update(given)


def encode(plain: dict[str, Any]) -> bytes:
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
        if not LEAST_INTEGER <= value <= MOST_INTEGER:
            raise NotJson(f"{where} is an integer of more than 64 bits; readers of JSON would round it, so give it as text")
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
