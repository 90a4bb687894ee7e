"""Who listens to what models are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from llamarunner.catalog import ModelEntry
from llamarunner.fleet.launch import Endpoint

MOST_BYTES = 65_536  # of a body; longer ones are not told, for listeners keep them


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is being asked, and where its process is."""

    entry: ModelEntry
    endpoint: Endpoint
    path: str
    body: bytes = field(repr=False)


class Tap:
    """All who listen; they are called at once, and must be quick and raise nothing."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[Asked], None]] = set()

    def tell(self, asked: Asked) -> None:
        if len(asked.body) <= MOST_BYTES:
            for listener in tuple(self._listeners):
                listener(asked)

    @contextmanager
    def listening(self, listener: Callable[[Asked], None]) -> Iterator[None]:
        """Let a function hear it until the end of the block."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)
