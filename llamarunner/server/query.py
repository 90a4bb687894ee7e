"""What stands behind the question mark of a path."""

from __future__ import annotations

from aiohttp import web

from llamarunner.errors import InvalidRequest

SWITCH = {"true": True, "True": True, "1": True, "": True, "false": False, "False": False, "0": False}
"""What clients write: `?force` alone, and what Python's `str` makes of a bool."""
MOST_DIGITS = 9


def flag(request: web.Request, name: str) -> bool:
    """Read a switch, which is off if it is not there. Raises InvalidRequest."""
    value = request.query.get(name, "false")
    if value not in SWITCH:
        raise InvalidRequest(f"'{name}' must be true or false.", param=name)
    return SWITCH[value]


def count(request: web.Request, name: str, default: int, most: int) -> int:
    """Read a number from 0 to `most`. Raises InvalidRequest."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS and int(text) <= most):
        raise InvalidRequest(f"'{name}' must be a whole number from 0 to {most}.", param=name)
    return int(text)
