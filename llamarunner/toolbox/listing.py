"""What models are told of the tools that servers list; pure.

A server may list what it likes. So a model gets names that every template and grammar can take, descriptions and
schemas of bounded size, and never one tool in the place of another.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llamarunner.toolbox.contract import Tool

NAME_LENGTH = 64  # of a function in OpenAI's API
LISTED_NAME_LENGTH = 256
DESCRIPTION_LENGTH = 4096
SCHEMA_BYTES = 32_768
SCHEMA_DEPTH = 32
UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


class Unusable(Exception):
    """What a server lists cannot be used; the text says why, to whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool as its server lists it."""

    name: str
    description: str
    schema: Mapping[str, object]


def picked(listed: Iterable[Listed], allowed: Sequence[str] | None, most: int) -> list[Listed]:
    """Return the tools of one server that are allowed, fit for a model. Raises Unusable."""
    wanted = [tool for tool in listed if allowed is None or tool.name in allowed]
    if len(wanted) > most:
        raise Unusable(f"It has {len(wanted)} tools, and at most {most} may be used: name some in allowed_tools.")
    twice = next((name for name, times in Counter(tool.name for tool in wanted).items() if times > 1), None)
    if twice is not None:
        raise Unusable(f"It lists the tool {shown(twice)} twice.")
    return [_fit(tool) for tool in wanted]


def named(servers: Sequence[tuple[str, Mapping[str, str], Sequence[Listed]]]) -> Iterator[tuple[Tool, int, str]]:
    """Yield each tool as models are told of it, the index of its server, and its name there.

    A server is its label, its `provider_info` and its tools. What two of them call by one name gets the label before
    it, with both, so that none can take the place of the other.
    """
    times = Counter(plain(tool.name) for _, _, tools in servers for tool in tools)
    taken: set[str] = set()
    for index, (label, provider, tools) in enumerate(servers):
        for tool in tools:
            name = plain(tool.name)
            name = _free(name if times[name] == 1 else plain(f"{label}_{tool.name}"), taken)
            taken.add(name)
            yield Tool(name, tool.description, tool.schema, provider), index, tool.name


def plain(name: str) -> str:
    """Write a name with letters, digits, _ and - alone."""
    return UNFIT.sub("_", name)[:NAME_LENGTH] or "_"


def shown(text: str, length: int = 100) -> str:
    """Quote what a stranger wrote, for a message."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[: NAME_LENGTH - len(str(number)) - 1]}_{number}"
    return free


def _fit(tool: Listed) -> Listed:
    if not 0 < len(tool.name) <= LISTED_NAME_LENGTH:
        raise Unusable(f"It lists a tool whose name has {len(tool.name)} characters.")
    description = tool.description
    if len(description) > DESCRIPTION_LENGTH:
        description = description[: DESCRIPTION_LENGTH - 1] + "…"
    schema = {"type": "object", **tool.schema}
    if schema["type"] != "object":
        raise Unusable(f"The schema of its tool {shown(tool.name)} is not that of an object.")
    try:
        size = len(json.dumps(schema, allow_nan=False)) if _depth(schema) <= SCHEMA_DEPTH else SCHEMA_BYTES + 1
    except ValueError:
        raise Unusable(f"The schema of its tool {shown(tool.name)} has a number that JSON cannot hold.") from None
    if size > SCHEMA_BYTES:
        raise Unusable(
            f"The schema of its tool {shown(tool.name)} has more than {SCHEMA_BYTES} bytes, or is nested deeper than "
            f"{SCHEMA_DEPTH}: leave it out with allowed_tools."
        )
    return Listed(tool.name, description, schema)


def _depth(value: object) -> int:
    """How deep a JSON value is nested; counts no deeper than it must."""
    level, depth = [value], 0
    while level and depth <= SCHEMA_DEPTH:
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth
