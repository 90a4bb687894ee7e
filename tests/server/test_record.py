"""One record for each request, told once to the log, the metrics and the bus."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door
from llamarunner.errors import InvalidRequest
from llamarunner.events import Bus, Event, RequestFinished
from llamarunner.server.metrics import Metrics
from llamarunner.server.record import Record, Records

TIMINGS = {"prompt_n": 3, "cache_n": 17, "predicted_n": 5, "predicted_per_second": 250.0}
SECRET = "the password is swordfish"


@asynccontextmanager
async def listening(folder: Path, **options: Any) -> AsyncIterator[tuple[House, list[RequestFinished]]]:
    """A house, and the requests that its bus has told about."""
    told: list[RequestFinished] = []
    async with open_house(folder, **options) as house:
        house.services.bus.listen(lambda event: told.append(event) if isinstance(event, RequestFinished) else None)
        yield house, told


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "llamarunner")
    return caplog


def access(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [dict(vars(line)["fields"]) for line in log.records if line.name == "llamarunner.access"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_recorded_whole(tmp_path: Path, log: pytest.LogCaptureFixture, stream: bool) -> None:
    async with listening(tmp_path) as (house, told):
        headers = {"X-Request-ID": "id-1"}
        fake = {"timings": TIMINGS}
        async with house.client.post(
            house.urls["ollama"] + "/v1/chat/completions?a=b",
            json={"model": "CHAT:latest", "messages": [{"role": "user", "content": SECRET}], "stream": stream}
            | {"fake": fake},
            headers=headers,
        ) as response:
            await response.read()
        await house.until(lambda: bool(told))
        assert not house.services.records.active
    (event,), (fields,) = told, access(log)
    assert (event.request_id, event.door, event.client, event.method) == ("id-1", "ollama", "127.0.0.1", "POST")
    assert (event.path, event.status, event.model_id, event.stream) == ("/v1/chat/completions", 200, "chat", stream)
    assert (event.prompt_tokens, event.completion_tokens) == (20, 5)
    assert (event.first_token_seconds is not None) is stream
    assert fields.pop("ms") == round(event.seconds * 1000, 1)
    assert 0 < fields.pop("load_ms") <= event.seconds * 1000
    assert fields.pop("queue_ms") >= 0
    if stream:
        assert 0 < fields.pop("first_token_ms") <= event.seconds * 1000
        assert (fields.pop("stream"), fields.pop("tokens_per_second")) == (True, 250.0)
    assert fields == {
        "request_id": "id-1",
        "door": "ollama",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "dialect": "openai",
        "model": "chat",
        "prompt_tokens": 20,
        "completion_tokens": 5,
    }
    assert SECRET not in "".join(line.getMessage() for line in log.records)


async def test_a_warm_model_is_not_waited_for(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    async with open_house(tmp_path) as house:
        for _ in range(2):
            async with house.chat() as response:
                assert response.status == 200
    cold, warm = access(log)
    assert cold["load_ms"] > 1
    assert "load_ms" not in warm
    assert warm["queue_ms"] < cold["load_ms"]


async def test_the_wait_for_room_is_told_apart_from_the_load(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "other": {}}
    async with (
        open_house(tmp_path, models=models, supervisor={"max_loaded_models": 1}) as house,
        house.chat(stream=True, fake={"tokens": 6, "delay": 0.05}) as busy,
    ):
        await house.wait_for("token")
        async with house.chat(model="other") as response:
            assert response.status == 200
        await busy.read()
    waited = next(fields for fields in access(log) if fields["model"] == "other")
    assert waited["queue_ms"] > 100
    assert 0 < waited["load_ms"] <= waited["ms"] - waited["queue_ms"] + 1


async def test_a_failure_is_recorded(tmp_path: Path) -> None:
    async with listening(tmp_path) as (house, told):
        async with house.chat(fake={"status": 400}) as response:
            assert response.status == 400
        async with house.chat(stream=True, fake={"then": "die"}) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        await house.until(lambda: len(told) == 2)
        async with house.chat(model="nobody") as response:
            assert response.status == 404
        await house.until(lambda: len(told) == 3)
    assert [(event.status, event.model_id) for event in told] == [(400, "chat"), (502, "chat"), (404, None)]
    assert told[1].first_token_seconds is not None, "it had begun"
    assert told[1].completion_tokens is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_recorded(tmp_path: Path, stream: bool) -> None:
    async with listening(tmp_path) as (house, told):
        fake = {"prefill": 0 if stream else 30, "tokens": 1000, "delay": 0.02}
        asked = asyncio.get_running_loop().create_task(_part_of(house, stream, fake))
        await house.wait_for("request")
        if not stream:
            asked.cancel()
        await asyncio.wait({asked})
        await house.until(lambda: bool(told))
        assert not house.services.records.active
    assert (told[0].status, told[0].model_id, told[0].stream) == (499, "chat", stream)


async def _part_of(house: House, stream: bool, fake: dict[str, Any]) -> None:
    async with house.chat(stream=stream, fake=fake) as response:
        await response.content.readany()
        response.close()


async def test_what_limits_refuse_is_counted_and_no_event(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """A storm of refusals would drive other events out of their queues."""
    door = Door(rate_limits=NO_LIMITS.model_copy(update={"requests_per_minute": 1}))
    async with listening(tmp_path, models={}, door=door) as (house, told):
        for expected in (200, 429, 429):
            async with house.client.get(house.url + "/v1/models") as response:
                assert response.status == expected
        async with house.client.get(house.url + "/health") as response:
            assert response.status == 200
        await house.until(lambda: len(access(log)) == 4)
    assert [event.status for event in told] == [200]
    assert [fields["status"] for fields in access(log)] == [200, 429, 429, 200]


async def test_llamacpps_own_keep_alive_is_no_token(tmp_path: Path) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    program = ("scripted_llama.py", json.dumps([head, ":\n\n", 0.3, 'data: {"a":1}\n\n', "data: [DONE]\n\n"]))
    async with listening(tmp_path, program=program) as (house, told):
        async with house.chat(stream=True) as response:
            await response.read()
        await house.until(lambda: bool(told))
    assert (told[0].first_token_seconds or 0) > 0.3


@pytest.mark.parametrize("wanted", [False, True])
async def test_prompts_are_logged_only_if_the_owner_asks(
    tmp_path: Path, log: pytest.LogCaptureFixture, wanted: bool
) -> None:
    asked = {"model": "chat", "messages": [{"role": "user", "content": SECRET}], "seed": 4711}
    async with (
        open_house(tmp_path, logging={"prompts": wanted}) as house,
        house.post("/v1/chat/completions", asked) as response,
    ):
        assert response.status == 200
    said = [line.getMessage() for line in log.records]
    assert any(SECRET in line for line in said) is wanted
    assert not any("4711" in line or "t0 t1" in line for line in said)


async def test_a_line_cannot_be_forged_by_a_request(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    async with open_house(tmp_path, models={}) as house:
        for path, request_id in (("/a\x1b[31m", "b"), ("/a%0a%1b", "b\x1b[31m"), ("/a", "b\tc"), ("/\u009b", "b")):
            await house.request(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
            )
    from llamarunner.logs import JsonFormatter, TextFormatter

    told = [
        form.format(line) for form in (TextFormatter(), JsonFormatter()) for line in log.records if "llama" in line.name
    ]
    assert len(told) >= 8
    assert [line for line in told if not line.isprintable()] == []
    assert not re.search("[\x1b\t]", "".join(str(fields) for fields in access(log)))


# ── by hand ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def records() -> tuple[Records, list[Event]]:
    told: list[Event] = []
    bus = Bus()
    bus.listen(told.append)
    return Records(bus, Metrics("1", lambda model: model)), told


def test_what_is_no_http_request_is_recorded_by_hand(records: tuple[Records, list[Event]]) -> None:
    opened, told = records
    with opened.open(Record("id", "ollama", "::1", "WS", "/v1/ws", "openai", admitted=True)) as record:
        assert opened.active == {record}
        record.model_id = "chat"
        assert told == []
    assert not opened.active
    (event,) = told
    assert isinstance(event, RequestFinished)
    assert (event.status, event.model_id, event.method) == (200, "chat", "WS")


@pytest.mark.parametrize(
    ("error", "status"),
    [(InvalidRequest("no"), 400), (asyncio.CancelledError(), 499), (ConnectionResetError(), 499), (KeyError(), 500)],
)
def test_its_status_is_what_its_end_means(
    records: tuple[Records, list[Event]], error: BaseException, status: int
) -> None:
    opened, told = records
    with pytest.raises(type(error)), opened.open(Record("id", "ollama", "::1", admitted=True)):
        raise error
    assert [event.status for event in told if isinstance(event, RequestFinished)] == [status]
