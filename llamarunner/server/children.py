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

from llamarunner.fleet.lease import Instance
from llamarunner.fleet.supervisor import Supervisor
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
    """One family for each name, with labels for the process that each sample is of."""
    families: dict[str, Metric] = {}
    for instance, text in told:
        labels = {"model": instance.entry.instance_id, "task": str(instance.task)}
        for found in _parsed(instance.entry.id, text):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            family.samples += [one._replace(labels={**one.labels, **labels}) for one in found.samples]
    return list(families.values())


def _parsed(model: str, text: str) -> list[Metric]:
    try:
        families = list(text_string_to_metric_families(text))
    except Exception as error:  # the parser has no exception of its own, and what it reads is another program's
        log.debug("%s: its metrics cannot be read: %s", model, error)
        return []
    return [_ours(family, text) for family in families if family.name.startswith(THEIRS)]


def _ours(theirs: Metric, text: str) -> Metric:
    """Call it as we do. llama.cpp calls a maximum a counter too; the parser adds to its name what counters end with."""
    maximum = f"# TYPE {theirs.name} counter\n" in text
    ours = Metric(theirs.name.replace(THEIRS, OURS, 1), theirs.documentation, "gauge" if maximum else theirs.type)
    for one in theirs.samples:
        name = theirs.name if maximum else one.name
        ours.samples.append(one._replace(name=name.replace(THEIRS, OURS, 1)))
    return ours
