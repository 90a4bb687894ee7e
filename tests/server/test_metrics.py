"""What is counted of requests and events, and which labels it gets."""

from __future__ import annotations

import pytest

from llamarunner.events import Bus, ModelFailed, ModelLoading, ModelStarted, ModelStopped
from llamarunner.server.metrics import Metrics
from llamarunner.server.record import Record


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3", {"chat": object()}.get)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"llamarunner_{name}", labels)


def finished(**fields: object) -> Record:
    record = Record("id", "ollama", "127.0.0.1", dialect="openai")
    for name, given in fields.items():
        setattr(record, name, given)
    return record


def test_every_event_of_a_model_is_counted_once(metrics: Metrics) -> None:
    bus = Bus()
    bus.listen(metrics.hear)
    for event in (
        ModelLoading("chat"),
        ModelStarted("chat", 1, 0.2),
        ModelStarted("chat", 1, 3.0),
        ModelStopped("chat", "evicted"),
        ModelFailed("chat", "it died"),
    ):
        bus.publish(event)
    assert value(metrics, "model_load_seconds_count", model="chat") == 2
    assert value(metrics, "model_load_seconds_sum", model="chat") == pytest.approx(3.2)
    assert value(metrics, "model_unloads_total", model="chat", reason="evicted") == 1
    assert value(metrics, "model_failures_total", model="chat") == 1


def test_only_models_of_the_catalog_are_labels(metrics: Metrics) -> None:
    for number in range(100):
        metrics.count(finished(model_id=f"invented-{number}", status=200, prompt_tokens=1))
    assert value(metrics, "requests_total", door="ollama", dialect="openai", model="", status="200") == 100
    labels = {sample.labels.get("model") for family in metrics.registry.collect() for sample in family.samples}
    assert labels <= {"", None}


def test_what_is_not_known_is_not_counted(metrics: Metrics) -> None:
    metrics.count(finished(model_id="chat", status=499, seconds=2.0))
    assert value(metrics, "request_seconds_sum", model="chat") == 2
    for name in ("queue_seconds_count", "first_token_seconds_count", "token_seconds_count", "prompt_tokens_total"):
        assert value(metrics, name, model="chat") == 0, name


def test_what_is_known_is_counted(metrics: Metrics) -> None:
    times = {"seconds": 2.0, "queue_seconds": 0.5, "first_token_seconds": 1.0, "tokens_per_second": 20.0}
    for _ in range(2):
        metrics.count(finished(model_id="chat", status=200, prompt_tokens=7, completion_tokens=9, **times))
    sums = {"request": 4, "queue": 1, "first_token": 2, "token": 0.1}
    assert {name: value(metrics, f"{name}_seconds_sum", model="chat") for name in sums} == pytest.approx(sums)
    assert value(metrics, "prompt_tokens_total", model="chat") == 14
    assert value(metrics, "completion_tokens_total", model="chat") == 18


def test_two_houses_in_one_process_count_apart() -> None:
    one, other = Metrics("1", {}.get), Metrics("2", {}.get)
    one.refused("ollama", "requests_per_minute")
    assert value(one, "limited_total", door="ollama", limit="requests_per_minute") == 1
    assert value(other, "limited_total", door="ollama", limit="requests_per_minute") is None
