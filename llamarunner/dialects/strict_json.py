"""JSON from strangers: one reading of every document, or none.

The standard parser takes what others refuse (NaN, duplicate keys, lone surrogates, UTF-16) and can be made to work for
seconds or to exhaust the stack. Here all of that is an `InvalidRequest`. What would be costly to parse is found out by
counting bytes, before parsing: 100 MB take some 40 ms.
"""

from __future__ import annotations

import json
import math
import re
from typing import Never

from llamarunner.errors import InvalidRequest

MAX_DEPTH = 64
MAX_NODES = 200_000

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotJson(InvalidRequest):
    """Text that is no JSON; `fault` is what the parser stumbled over, and where."""

    def __init__(self, fault: json.JSONDecodeError) -> None:
        where = f"line {fault.lineno}, column {fault.colno}"
        super().__init__(f"The request body is not valid JSON: {fault.msg} ({where}).")
        self.fault = fault


def loads_object(body: bytes) -> dict[str, object]:
    """Parse a document whose top level is an object. Raises InvalidRequest."""
    value = loads(body)
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return value


def loads(body: bytes) -> object:
    """Parse one JSON document. Raises InvalidRequest (NotJson for what is none), whatever the bytes are."""
    if not body:
        raise InvalidRequest("The request body is empty; it must be a JSON object.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not valid UTF-8.") from None
    _check_size(body)
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(error) from None
    except ValueError:  # int() refuses more than 4300 digits
        raise InvalidRequest("The request body holds a number with too many digits.") from None
    if _SURROGATE.search(body):
        _check_surrogates(value)
    return value


def dumps(value: object) -> bytes:
    """Write a value in the shortest form, in UTF-8."""
    return _ENCODER.encode(value).encode()


def _check_size(body: bytes) -> None:
    """Refuse documents that are too deep or have too many values, by counts that are exact for valid JSON."""
    brackets = body.count(b"[") + body.count(b"{")
    if brackets <= MAX_DEPTH and brackets + body.count(b",") < MAX_NODES:
        return
    if body.count(b'"') - body.count(b'\\"') > 4 * MAX_NODES:  # two quotes for each key and each value
        raise InvalidRequest(f"The request body holds more than {MAX_NODES} values.")
    bare = _STRING.sub(b"", body)
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") >= MAX_NODES:
        raise InvalidRequest(f"The request body holds more than {MAX_NODES} values.")
    depth = 0
    for bracket in bare.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"The request body is nested more than {MAX_DEPTH} levels deep.")


def _check_surrogates(value: object) -> None:
    try:
        dumps(value)
    except UnicodeEncodeError:
        raise InvalidRequest("The request body holds half of a surrogate pair.") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRequest(f"The key {json.dumps(twice[:100])} appears twice in one object.", param=_printable(twice))
    return made


def _printable(key: str) -> str | None:
    return key if len(key) <= 100 and key.isprintable() else None


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidRequest(f"The number {digits[:40]} is too large.")
    return number


def _no_constant(name: str) -> Never:
    raise InvalidRequest(f"{name} is not valid JSON.")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
