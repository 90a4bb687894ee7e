"""What is counted, for `GET /metrics`: a registry of our own, which every door shows.

Labels are few and bounded: `model` is an id of the catalog or empty, never what a client wrote. Nothing is counted from
a queue that may lose something; the bus calls `hear` before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from platform import python_version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, disable_created_metrics

from llamarunner.events import Event, ModelFailed, ModelStarted, ModelStopped

if TYPE_CHECKING:
    from llamarunner.server.record import Record

REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
QUEUE_BUCKETS = (0.005, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LOAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)

Known = Callable[[str], object | None]


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted of the requests to one model."""

    seconds: Histogram
    queue: Histogram
    first_token: Histogram
    token: Histogram
    prompt: Counter
    completion: Counter


class Metrics:
    """`known` tells what the catalog has under an id."""

    def __init__(self, version: str, known: Known) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._known = known
        self._requests: dict[tuple[str, str, str, int], Counter] = {}  # to look labels up is slow in the library
        self._series: dict[str, Series] = {}
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        model = ("model",)
        self._all_requests = counter(
            "llamarunner_requests", "Requests that are over; status 499: left.", ("door", "dialect", "model", "status")
        )
        self._all_series = Series(
            histogram("llamarunner_request_seconds", "Time of whole requests.", model, buckets=REQUEST_BUCKETS),
            histogram(
                "llamarunner_queue_seconds",
                "Wait of requests for a model, without its loading.",
                model,
                buckets=QUEUE_BUCKETS,
            ),
            histogram(
                "llamarunner_first_token_seconds",
                "Time from a request to the first byte of its stream.",
                model,
                buckets=FIRST_TOKEN_BUCKETS,
            ),
            histogram("llamarunner_token_seconds", "Mean time per token of an answer.", model, buckets=TOKEN_BUCKETS),
            counter("llamarunner_prompt_tokens", "Tokens of prompts, with those that were in the cache.", model),
            counter("llamarunner_completion_tokens", "Tokens of answers.", model),
        )
        self._loads = histogram("llamarunner_model_load_seconds", "Time to load a model.", model, buckets=LOAD_BUCKETS)
        self._unloads = counter(
            "llamarunner_model_unloads",
            "Models unloaded: asked, idle, evicted, cancelled, shutdown.",
            ("model", "reason"),
        )
        self._failures = counter("llamarunner_model_failures", "Processes that would not start, or died.", model)
        self._limited = counter("llamarunner_limited", "Requests refused by a limit.", ("door", "limit"))
        Info("llamarunner_build", "What runs here.", registry=self.registry).info(
            {"version": version, "python": python_version()}
        )
        ProcessCollector(registry=self.registry)

    def count(self, record: Record) -> None:
        """Count a request that is over."""
        model = record.model_id if record.model_id and self._known(record.model_id) else ""
        labels = record.door, record.dialect, model, record.status
        if (requests := self._requests.get(labels)) is None:
            requests = self._requests[labels] = self._all_requests.labels(*labels)
        requests.inc()
        if model:
            self._count_use(self._series.get(model) or self._new_series(model), record)

    def hear(self, event: Event) -> None:
        """Count what happens to models."""
        match event:
            case ModelStarted():
                self._loads.labels(event.model_id).observe(event.seconds)
            case ModelStopped():
                self._unloads.labels(event.model_id, event.reason).inc()
            case ModelFailed():
                self._failures.labels(event.model_id).inc()

    def refused(self, door: str, limit: str) -> None:
        """Count a request that a limit refused."""
        self._limited.labels(door, limit).inc()

    def _new_series(self, model: str) -> Series:
        every = self._all_series
        series = self._series[model] = Series(
            every.seconds.labels(model),
            every.queue.labels(model),
            every.first_token.labels(model),
            every.token.labels(model),
            every.prompt.labels(model),
            every.completion.labels(model),
        )
        return series

    def _count_use(self, series: Series, record: Record) -> None:
        series.seconds.observe(record.seconds)
        if record.queue_seconds is not None:
            series.queue.observe(record.queue_seconds)
        if record.first_token_seconds is not None:
            series.first_token.observe(record.first_token_seconds)
        if record.tokens_per_second is not None:
            series.token.observe(1 / record.tokens_per_second)
        if record.prompt_tokens:
            series.prompt.inc(record.prompt_tokens)
        if record.completion_tokens:
            series.completion.inc(record.completion_tokens)
