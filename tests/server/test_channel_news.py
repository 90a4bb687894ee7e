"""Events and logs through the websocket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType
from doors import House, open_house
from talking import Talk, asking, connected

from llamarunner.config import NO_LIMITS, Door
from llamarunner.events import (
    Event,
    ModelLoading,
    ModelStopped,
    RequestFinished,
    ServerStopping,
    TranscriptionCompleted,
)

MODELS: dict[str, dict[str, Any]] = {"chat": {}, "tiny": {}}
FINISHED = {"door": "lmstudio", "client": "192.0.2.1", "method": "GET", "path": "/", "status": 200, "seconds": 0.1}
OTHERS = 1  # subscriptions: that of the webhooks
UNMANAGED = Door(rate_limits=NO_LIMITS, allow_management="never")


def finished(model_id: str | None) -> RequestFinished:
    return RequestFinished(request_id="r", model_id=model_id, **FINISHED)  # type: ignore[arg-type]


async def subscribed(talk: Talk, **wanted: Any) -> dict[str, Any]:
    await talk.send({"type": "subscribe", **wanted})
    return await talk.next()


async def heard(house: House, talk: Talk, *events: Event) -> list[str]:
    """Publish events, and tell which of them the client hears; the last one marks the end."""
    for event in (*events, ModelLoading("chat")):
        house.services.bus.publish(event)
    names = []
    while not names or names[-1] != "model.loading":
        names.append((await talk.next("event"))["event"])
    return names[:-1]


# ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_hears_what_its_globs_name_and_each_event_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk, connected(house, "websockets") as other:
        answer = await subscribed(talk, id="s", events=["model.*", "*.started", "model.loading"])
        events = ["model.*", "*.started", "model.loading"]
        assert answer == {"type": "subscribed", "id": "s", "events": events, "logs": []}
        await subscribed(other, events=["model.stopped"])
        async with house.chat() as response:
            assert response.status == 200
        house.services.bus.publish(ServerStopping("1"))
        house.services.bus.publish(ModelStopped("chat", "asked"))
        messages = [await talk.next() for _ in range(3)]
        assert [message["event"] for message in messages] == ["model.loading", "model.started", "model.stopped"]
        started = messages[1]
        assert started["timestamp"].endswith("Z")
        assert started["data"]["model_id"] == "chat"
        assert started["data"].keys() == {"model_id", "port", "seconds"}
        assert (await other.next())["event"] == "model.stopped"


async def test_unsubscribing_drops_what_is_named_or_everything(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await subscribed(talk, events=["model.*", "server.*"], logs=["chat"])
        await talk.send({"type": "unsubscribe", "id": "u", "events": ["server.*", "never.*"], "logs": ["CHAT"]})
        assert await talk.next() == {"type": "unsubscribed", "id": "u", "events": ["model.*"], "logs": []}
        assert await heard(house, talk, ServerStopping("1")) == []
        await talk.send({"type": "unsubscribe"})
        assert (await talk.next())["events"] == []
        house.services.bus.publish(ModelLoading("chat"))
        await talk.send({"type": "ping"})
        assert (await talk.next())["type"] == "pong"
        await house.until(lambda: len(house.services.bus._subscriptions) == OTHERS)
        await subscribed(talk, events=["server.*", "model.loading"])
        assert await heard(house, talk, ServerStopping("1")) == ["server.stopping"]


async def test_a_closed_socket_leaves_no_subscription(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with connected(house) as talk:
            await subscribed(talk, events=["*"], logs=["chat"])
            await heard(house, talk)
        await house.until(lambda: len(house.services.bus._subscriptions) == OTHERS)
        entry = house.services.catalog.find("chat")
        assert not house.services.supervisor.output(entry)._followers


async def test_a_slow_client_is_told_how_many_events_it_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await subscribed(talk, events=["model.*"])
        await heard(house, talk)
        for _ in range(1024 + 7):  # more than the mailbox holds, in one go
            house.services.bus.publish(ModelStopped("chat", "asked"))
        assert await talk.next() == {"type": "events_lost", "count": 7}
        assert (await talk.next())["event"] == "model.stopped"


async def test_a_key_for_some_models_hears_of_those_only(tmp_path: Path) -> None:
    keys = Door.model_validate(
        {"api_keys": ["all", {"key": "some", "models": ["chat"]}], "rate_limits": NO_LIMITS.model_dump()}
    )
    events = (ModelStopped("tiny", "idle"), finished("tiny"), finished(None), finished("chat"), ServerStopping("1"))
    told = {
        "some": ["request.finished", "server.stopping"],
        "all": ["model.stopped", *["request.finished"] * 3, "server.stopping"],
    }
    async with open_house(tmp_path, models=MODELS, door=keys) as house:
        for key, expected in told.items():
            async with connected(house, headers={"x-api-key": key}) as talk:
                await subscribed(talk, events=["*"])
                assert await heard(house, talk, *events) == expected
                answer = await subscribed(talk, logs=["tiny"])
                assert answer["type"] == ("error" if key == "some" else "subscribed")


async def test_where_models_cannot_be_managed_nobody_hears_of_requests_and_logs(tmp_path: Path) -> None:
    spoken = TranscriptionCompleted("r", "chat", "transcribe", "en", 1.0, 0.1, "what somebody said")
    async with open_house(tmp_path, door=UNMANAGED) as house, connected(house) as talk:
        for wanted in ({"events": ["request.*"]}, {"events": ["model.*", "request.finished"]}, {"logs": ["chat"]}):
            assert (await subscribed(talk, **wanted))["error"]["code"] == "forbidden"
        assert (await subscribed(talk, events=["*"]))["events"] == ["*"]
        assert await heard(house, talk, finished("chat")) == []
        house.services.bus.publish(spoken)
        assert (await talk.next())["data"]["text"] is None
    async with open_house(tmp_path) as house, connected(house) as talk:
        await subscribed(talk, events=["*"])
        house.services.bus.publish(spoken)
        assert (await talk.next())["data"]["text"] == "what somebody said"


async def test_a_key_that_is_taken_away_hears_no_more(tmp_path: Path) -> None:
    keys = Door.model_validate({"api_keys": ["k"], "rate_limits": NO_LIMITS.model_dump()})
    async with open_house(tmp_path, door=keys) as house, connected(house, headers={"x-api-key": "k"}) as talk:
        await subscribed(talk, events=["*"], logs=["chat"])
        await heard(house, talk)
        for view in house.services.views:
            view.configure(keys.model_copy(update={"api_keys": ("other",)}))
        house.services.bus.publish(ModelLoading("chat"))
        house.services.supervisor.output(house.services.catalog.find("chat")).add([b"secret"])
        assert (await talk.next())["error"]["code"] == "invalid_api_key"
        while (frame := await talk.socket.receive()).type is WSMsgType.TEXT:
            assert json.loads(frame.data)["type"] == "error"
        assert (frame.type, frame.data) == (WSMsgType.CLOSE, 1008)
        await house.until(lambda: len(house.services.bus._subscriptions) == OTHERS)


@pytest.mark.parametrize(("field", "count"), [("events", 33), ("logs", 9)])
async def test_subscriptions_of_one_socket_are_bounded(tmp_path: Path, field: str, count: int) -> None:
    names = [f"m{number}" for number in range(9)]
    async with open_house(tmp_path, models={name: {} for name in names}) as house, connected(house) as talk:
        each = {"events": [f"model.*{'*' * number}" for number in range(count)], "logs": names}[field]
        await subscribed(talk, **{field: each[:-1]})
        refused = await subscribed(talk, **{field: each[-1:]})
        assert (refused["type"], refused["error"]["code"]) == ("error", "invalid_request")
        again = await subscribed(talk, **{field: each[:1]})
        assert again[field] == each[:-1]


# ── logs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_log_begins_with_its_tail_and_goes_on_across_lives(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await subscribed(talk, logs=["CHAT:latest"], tail=5)
        for life in range(2):
            await talk.send(asking(id=f"c{life}", fake={"print": f"life {life}"}))
            lines: list[str] = []
            while f"life {life}" not in lines:
                message = await talk.next("log")
                assert (message["model"], message["lost"]) == ("chat", 0)
                lines += message["lines"]
            assert "loading model" in lines
            async with house.post("/v1/models/chat/stop", {}) as response:
                assert response.status == 200
        async with connected(house) as late:
            await subscribed(late, logs=["chat"], tail=1)
            assert (await late.next("log"))["lines"] == ["life 1"]


async def test_a_client_that_is_too_slow_for_a_log_is_told_what_it_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        output = house.services.supervisor.output(house.services.catalog.find("chat"))
        await subscribed(talk, logs=["chat"])
        await talk.send({"type": "ping"})
        await talk.next("pong")
        output.add([b"%d" % number for number in range(10_003)])
        first = await talk.next("log")
        assert (first["lost"], first["lines"][0]) == (3, "3")
        seen = len(first["lines"])
        while seen < 10_000:
            seen += len((await talk.next("log"))["lines"])


async def test_a_client_that_reads_no_news_is_dropped(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"write_stall_seconds": 0.3}) as house, connected(house) as talk:
        output = house.services.supervisor.output(house.services.catalog.find("chat"))
        await subscribed(talk, logs=["chat"])
        talk.socket._response.connection.transport.pause_reading()

        async def print_on() -> None:
            while output._followers:
                output.add([b"x" * 8000] * 20)
                await asyncio.sleep(0.01)

        async with asyncio.timeout(10):
            await print_on()
        assert await house.services.drain.idle(1)


async def test_logs_end_when_their_model_is_shown_no_longer(tmp_path: Path) -> None:
    keys = Door.model_validate({"api_keys": ["key"], "rate_limits": NO_LIMITS.model_dump()})
    headers = {"Authorization": "Bearer key"}
    async with open_house(tmp_path, models=MODELS, door=keys) as house, connected(house, headers=headers) as talk:
        await subscribed(talk, logs=["chat"])
        narrow = Door.model_validate({"api_keys": [{"key": "key", "models": ["tiny"]}, "other"]})
        for view in house.services.views:
            view.configure(keys.model_copy(update={"api_keys": narrow.api_keys}))
        async with house.post("/v1/models/chat/start?wait=true", {}, headers={"x-api-key": "other"}) as response:
            assert response.status == 200
        said = await talk.next()
        assert (said["type"], said["error"]["code"]) == ("error", "model_not_found")
        assert (await subscribed(talk, events=["model.*"]))["logs"] == []


async def test_names_that_only_the_house_knows_cannot_be_subscribed_to(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house, connected(house) as talk:
        refused = await subscribed(talk, events=["closing"])
        assert refused["type"] == "error"
        assert "closing" not in refused["error"]["message"]
