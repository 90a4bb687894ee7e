"""One path of ours, as the description of the API has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp.typedefs import Handler

JSON = "application/json"
NOT_FOUND = frozenset({404})
FROM_MODEL = frozenset({404, 502, 504})


@dataclass(frozen=True, slots=True)
class Asked:
    """What is read of a request before it is passed to the model; all else is the model's."""

    model: str | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """A switch in the query."""

    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number in the query, from 0 on."""

    name: str
    meaning: str
    default: int
    most: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words in the query; any if it is not there."""

    name: str
    meaning: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One path of ours. `answer` and `body` are types; a `media` that is not JSON has `str` or `bytes`, and None is an
    answer without a body. One that `streams` may be a line of JSON for each object.

    `also` are answers with another status that are no errors of the usual shape, `errors` those beyond the usual ones;
    `failure` is the type of all errors where they have another shape.
    """

    method: str
    path: str
    handler: Handler | str  # or what it does, in words
    answer: Any
    media: str = JSON
    status: int | None = 200  # None for one that only refuses
    body: Any = None
    body_media: str = JSON
    body_required: bool = False
    parameters: tuple[Flag | Count | Choice, ...] = ()  # of the query
    also: Mapping[int, Any] = field(default_factory=dict)
    errors: frozenset[int] = frozenset()
    failure: Any = None
    streams: bool = False
    tag: str = "management"


def plain(path: str) -> str:
    """A path as OpenAPI writes it: `{id:.+}` is `{id}`."""
    return re.sub(r"{(\w+):[^}]*}", r"{\1}", path)
