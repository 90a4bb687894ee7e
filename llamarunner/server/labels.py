"""Names that clients give to instances when they load them, each for as long as its instance runs."""

from __future__ import annotations

import asyncio

from llamarunner.fleet.lease import Instance


class Labels:
    """The names of one door, each with the load of which it is."""

    def __init__(self) -> None:
        self._loads: dict[str, asyncio.Future[Instance]] = {}

    def give(self, label: str, load: asyncio.Future[Instance]) -> None:
        """Name what a load will make."""
        self._loads = {name: one for name, one in self._loads.items() if _may_run(one)}
        self._loads[label] = load

    def is_taken(self, label: str) -> bool:
        return label in self._loads and _may_run(self._loads[label])

    def find(self, label: str) -> Instance | None:
        """The running instance of a name."""
        load = self._loads.get(label)
        return load.result() if load and load.done() and _may_run(load) else None

    def label_of(self, instance: Instance) -> str | None:
        """The name that an instance was given."""
        return next((label for label in self._loads if self.find(label) is instance), None)


def _may_run(load: asyncio.Future[Instance]) -> bool:
    if not load.done():
        return True
    return not load.cancelled() and load.exception() is None and not load.result().gone.is_set()
