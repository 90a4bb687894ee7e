"""A runtime is only a description: what to run, and how to tell that it is ready.

Every backend is a program that listens on a loopback port of its own choosing (`--port 0`) and says which on its
output. So no port is picked before it is bound, none can be stolen in between, and the line comes through a pipe that
only our child holds: what it names is what we started.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Task(StrEnum):
    """What an instance is started for; each has a process of its own."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"
    TRANSCRIBE = "transcribe"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one child program.

    `announces` is searched in each line of the child's output; its group `port` tells the port. `health` is a path
    that answers 200 once the model is loaded; None means that the announcement itself says so. `idle` is a path that
    answers 200 while the child works on nothing, of one that cannot be interrupted within a step: if it goes on with
    what nobody waits for, it is ended.
    `api_key` is the secret that the child asks for on every request, new for each start. `warnings` tell what was
    left out because this build of the runtime does not know it.
    """

    runtime: str
    argv: tuple[str, ...]
    announces: re.Pattern[str]
    api_key: str
    health: str | None = None
    idle: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a ready child listens, and the secret it wants."""

    url: str  # http://127.0.0.1:PORT, no slash at the end
    api_key: str

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])
