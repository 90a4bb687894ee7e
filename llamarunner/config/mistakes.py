"""One mistake in the settings: where it is and what is wrong; and how it reads as a line of text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NodePath = tuple[str | int, ...]

SECRETS = frozenset({"api_keys"})
SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Mistake:
    """`message` follows the path in the line that a user reads; `concerns` are more nodes that have a part in it."""

    path: NodePath
    message: str
    concerns: tuple[NodePath, ...] = ()


def json_path(path: NodePath) -> str:
    """Write a path as JSONPath does: `$.proxies.ollama.api_keys[0]`, `$.models["qwen*"]`."""
    return "$" + "".join(_step(part) for part in path)


def _step(part: str | int) -> str:
    if isinstance(part, str) and re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$-]*", part):
        return f".{part}"
    return f"[{json.dumps(part)}]"


def shown(value: Any, path: NodePath) -> str:
    """Describe a value for a message: short, on one line, and never a secret."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if SECRETS & set(path):
        return "a hidden value"
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + "…"


def render(mistakes: Iterable[Mistake], places: Mapping[NodePath, str]) -> tuple[str, ...]:
    """Write one line for each mistake, the first one told at each node, in the order of the places."""
    first: dict[NodePath, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.path, mistake)
    order = {path: number for number, path in enumerate(places)}
    told = sorted(first.values(), key=lambda mistake: order.get(_nearest(mistake.path, places), -1))
    return tuple(_line(mistake, places) for mistake in told)


def _line(mistake: Mistake, places: Mapping[NodePath, str]) -> str:
    place = places.get(_nearest(mistake.path, places))
    return (
        f"{place}: {json_path(mistake.path)} {mistake.message}"
        if place
        else f"{json_path(mistake.path)} {mistake.message}"
    )


def _nearest(path: NodePath, places: Mapping[NodePath, str]) -> NodePath:
    """Return the path, or the nearest one around it, of which the place is known."""
    return next((known for known in prefixes(path) if known in places), ())


def prefixes(path: NodePath) -> Iterator[NodePath]:
    """Yield the path and all paths above it, the longest first."""
    yield from (path[:length] for length in range(len(path), -1, -1))
