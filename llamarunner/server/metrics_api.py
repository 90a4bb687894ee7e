"""`GET /metrics`, for Prometheus: our own series and those of the models' processes, in the text format or OpenMetrics.

A door, and a key, shows the series of the models that it shows.
Specified at https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from aiohttp import web
from prometheus_client import Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from llamarunner.server.services import VIEW, Services, View

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Encode = Callable[[Collector], bytes]


async def metrics(request: web.Request) -> web.Response:
    """Show all series."""
    view = request.app[VIEW]
    children = await view.services.children.families()
    encode, content_type = _encoder(request.headers.get("Accept", ""))
    shown = Shown(view, [*_now(view.services), *children])
    body = await asyncio.to_thread(encode, shown)
    return web.Response(body=body, headers={"Content-Type": content_type})


class Shown(Collector):
    """The families of metrics as a door shows them: without the models that it hides."""

    def __init__(self, view: View, more: Iterable[Metric]) -> None:
        self._view = view
        self._more = more

    def collect(self) -> Iterator[Metric]:
        for family in (*self._view.services.metrics.registry.collect(), *self._more):
            shown = Metric(family.name, family.documentation, family.type, family.unit)
            shown.samples = [one for one in family.samples if self._shows(one.labels.get("model"))]
            yield shown

    def _shows(self, model: str | None) -> bool:
        return not model or self._view.shows_id(model)


def _now(services: Services) -> Iterator[Metric]:
    """What is under way at this moment."""
    active = services.records.active
    doors = {view.name for view in services.views}
    for name, what, counts in (
        ("llamarunner_active_requests", "Requests under way.", Counter(one.door for one in active)),
        ("llamarunner_active_streams", "Streams under way.", Counter(one.door for one in active if one.stream)),
    ):
        family = GaugeMetricFamily(name, what, labels=["door"])
        for door in sorted(doors | counts.keys()):
            family.add_metric([door], counts[door])
        yield family
    loaded = GaugeMetricFamily("llamarunner_model_loaded", "Models that are ready to use.", labels=["model", "task"])
    for instance in services.supervisor.ready():
        loaded.add_metric([instance.entry.instance_id, str(instance.task)], 1)
    yield loaded


def _encoder(accept: str) -> tuple[Encode, str]:
    if "application/openmetrics-text" in accept:
        return openmetrics.generate_latest, OPENMETRICS
    return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
