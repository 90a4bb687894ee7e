"""The models' processes' own series, for `GET /metrics`.

They are asked without a lease: that loads nothing, keeps nothing loaded, and uses no slot. One that does not answer
within a second is left out; answers hold for a second, so that asking often costs little.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from llamarunner.fleet.supervisor import Instance, Supervisor
from llamarunner.server.client import BrokenOff, CannotConnect, Client

log = logging.getLogger("llamarunner.server")

ASK_SECONDS = 1.0
FRESH_SECONDS = 1.0
THEIRS, OURS = "llamacpp:", "llamacpp_"


class Children:
    """The series of the models' processes."""

    def __init__(self, supervisor: Supervisor, client: Client) -> None:
        self._supervisor = supervisor
        self._client = client
        self._asking = asyncio.Lock()
        self._until = 0.0
        self._families: list[Metric] = []

    async def families(self) -> list[Metric]:
        """Ask every process that is ready, all at once."""
        async with self._asking:
            if time.monotonic() >= self._until:
                ready = self._supervisor.ready()
                texts = await asyncio.gather(*map(self._ask, ready))
                self._families = _merged(zip(ready, texts, strict=True))
                self._until = time.monotonic() + FRESH_SECONDS
            return self._families

    async def _ask(self, instance: Instance) -> str:
        assert instance.endpoint
        try:
            async with (
                asyncio.timeout(ASK_SECONDS),
                await self._client.request("GET", instance.endpoint, "/metrics") as exchange,
            ):
                body = await exchange.whole()
                return body.decode(errors="replace") if exchange.status == 200 else ""
        except (CannotConnect, BrokenOff, TimeoutError):
            return ""


def _merged(told: Iterable[tuple[Instance, str]]) -> list[Metric]:
    """One family for each name, with a label for the process that each sample is of."""
    families: dict[str, Metric] = {}
    for instance, text in told:
        labels = {"model": instance.entry.id, "task": str(instance.task)}
        for found in _parsed(instance.entry.id, text):
            name = found.name.replace(THEIRS, OURS, 1)
            family = families.setdefault(name, Metric(name, found.documentation, _kind(found)))
            family.samples += [
                one._replace(name=one.name.replace(THEIRS, OURS, 1), labels={**one.labels, **labels})
                for one in found.samples
            ]
    return list(families.values())


def _parsed(model: str, text: str) -> list[Metric]:
    try:
        return [found for found in text_string_to_metric_families(text) if found.name.startswith(THEIRS)]
    except Exception as error:  # the parser has no exception of its own, and what it reads is another program's
        log.debug("%s: its metrics cannot be read: %s", model, error)
        return []


def _kind(family: Metric) -> str:
    """llama.cpp calls a maximum a counter; real ones end as OpenMetrics demands."""
    counts = all(sample.name.endswith("_total") for sample in family.samples)
    return "gauge" if family.type == "counter" and not counts else family.type
