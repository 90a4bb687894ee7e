"""Durations as Go writes them (`1h30m`, `-1m`, `300ms`), and the keep_alive that is made of them."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from llamarunner.errors import InvalidRequest

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
_LONGEST = 2**63 / 1e9  # seconds that Go can hold
_MOST_LETTERS = 100  # no span of time needs more, and each part of one takes time to read


def parse_duration(text: str) -> float:
    """Read a duration, in seconds. Raises InvalidRequest with Go's own words."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    if not rest or len(rest) > _MOST_LETTERS:
        raise _invalid(text)
    seconds = 0.0
    while rest:
        part = _PART.match(rest)
        if part is None:
            raise _invalid(text)
        number, unit = part.groups()
        if not unit:
            raise InvalidRequest(f"time: missing unit in duration {_quoted(text)}")
        if unit not in _UNITS:
            raise InvalidRequest(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
        seconds += float(Decimal(number.rstrip("."))) * _UNITS[unit]
        rest = rest[part.end() :]
    if not seconds < _LONGEST:
        raise _invalid(text)
    return -seconds if text.startswith("-") else seconds


def keep_alive(value: object) -> float | None:
    """Read a keep_alive: seconds, or a duration; infinity is for ever, None was not given. Raises InvalidRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kind = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}[type(value)]
        raise InvalidRequest(f"Unsupported type: '{kind}'", param="keep_alive")
    if isinstance(value, int):
        value = max(-_LONGEST, min(value, _LONGEST))  # not every integer is a float
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    return math.inf if seconds < 0 or seconds >= _LONGEST else seconds


def _invalid(text: str) -> InvalidRequest:
    return InvalidRequest(f"time: invalid duration {_quoted(text)}")


def _quoted(text: str) -> str:
    return '"' + text[:100].replace("\\", "\\\\").replace('"', '\\"') + '"'
