"""Webhooks by REST, through the doors, with real models and a real target."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door
from tests.test_outbound import SPELLINGS
from tests.webhooks.target import Target, hang, opened

EVENTS = ["model.*", "server.started"]
QUICK = {"retry_base_seconds": 0.01}


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with opened() as target:
        yield target


async def ask(house: House, method: str, path: str = "", door: str = "lmstudio", **options: Any) -> tuple[int, Any]:
    async with house.client.request(method, f"{house.urls[door]}/v1/webhooks{path}", **options) as response:
        assert response.content_type == "application/json"
        assert response.headers["X-Request-ID"]
        return response.status, await response.json()


async def register(house: House, url: str, events: list[str] | None = None, **more: Any) -> Any:
    status, answer = await ask(house, "POST", "/register", json={"url": url, "events": events or EVENTS, **more})
    assert status == 200, answer
    return answer


async def test_a_model_that_starts_and_stops_is_told(tmp_path: Path, target: Target) -> None:
    """As the specification has it: register, and a payload with the event, when it was, and the model and its port."""
    async with open_house(tmp_path, webhooks=QUICK) as house:
        made = await register(house, target.url, ["model.started", "model.stopped", "transcription.completed"])
        assert (made["success"], made["created"], made["status"]) == (True, True, "active")
        async with house.post("/v1/models/chat/start?wait=true", {}) as response:
            port = (await response.json())["port"]
        async with house.post("/v1/models/chat/stop", {}) as response:
            assert response.status == 200
        started, stopped = await target.wait(2)
        for letter in (started, stopped):
            letter.verify(made["secret"])
        assert started.event == "model.started"
        assert (started.document["data"]["model_id"], started.document["data"]["port"]) == ("chat", port)
        assert (stopped.event, stopped.document["data"]["reason"]) == ("model.stopped", "asked")
        detail = await until_delivered(house, made["id"], 2)
        assert [one["event"] for one in detail["attempts"]] == ["model.stopped", "model.started"]
        assert [one["delivery"] for one in detail["attempts"]] == [stopped.id, started.id]


async def until_delivered(house: House, webhook: str, count: int) -> Any:
    async with asyncio.timeout(10):
        while len((detail := (await ask(house, "GET", f"/{webhook}"))[1])["attempts"]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return detail


async def test_the_life_of_a_webhook_through_both_doors(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, webhooks=QUICK) as house:
        made = await register(house, target.url)
        webhook = made["id"]
        told = {"id": webhook, "url": target.url, "events": EVENTS, "status": "active", "disabled_reason": None}
        counts = {"pending": 0, "failed": 0, "dropped": 0}
        for door in house.urls:
            status, answer = await ask(house, "GET", door=door)
            assert (status, answer["object"]) == (200, "list")
            created = answer["data"][0].pop("created_at")
            assert created.endswith("Z")
            assert answer["data"] == [told | counts]
        assert "secret" not in str(await ask(house, "GET", f"/{webhook}"))

        status, answer = await ask(house, "POST", f"/{webhook}/test", door="ollama")
        assert (status, answer["success"], answer["attempt"]["status_code"]) == (200, True, 200)
        assert answer["attempt"]["response"] == "status 200"
        target.script = [410]
        async with house.chat() as response:
            assert response.status == 200
        await until_delivered(house, webhook, 2)
        status, detail = await ask(house, "GET", f"/{webhook}")
        assert (detail["status"], detail["failed"]) == ("disabled", 1)
        assert "410" in detail["disabled_reason"]
        first = detail["attempts"][0]
        assert (first["event"], first["status_code"], first["success"]) == ("model.loading", 410, False)

        assert (await ask(house, "POST", f"/{webhook}/enable"))[1]["status"] == "active"
        assert await ask(house, "POST", f"/{webhook}/redeliver") == (200, {"success": True, "redelivered": 1})
        body = {"delivery": first["delivery"]}
        assert (await ask(house, "POST", f"/{webhook}/redeliver", json=body))[1]["redelivered"] == 1
        await until_delivered(house, webhook, 3)
        assert await ask(house, "DELETE", f"/{webhook}") == (200, {"success": True, "id": webhook, "deleted": True})
        assert (await ask(house, "GET"))[1]["data"] == []


async def test_a_url_registered_twice_is_one_webhook(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path) as house:
        made = await register(house, target.url)
        again = await register(house, target.url, ["server.*"])
        assert (again["id"], again["created"], again["secret"]) == (made["id"], False, None)
        own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        assert (await register(house, target.url, ["*"], secret=own))["secret"] == own
        assert [one["events"] for one in (await ask(house, "GET"))[1]["data"]] == [["*"]]
        await ask(house, "POST", f"/{made['id']}/test")
        target.letters[0].verify(own)


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"events": EVENTS}, "url"),
        ({"url": "https://a.example/"}, "events"),
        ({"url": 1, "events": EVENTS}, "url"),
        ({"url": "", "events": EVENTS}, "url"),
        ({"url": "ftp://a.example/", "events": EVENTS}, "url"),
        ({"url": "https://u:p@a.example/", "events": EVENTS}, "url"),
        ({"url": "https://a.example/" + "a" * 2048, "events": EVENTS}, "url"),
        ({"url": "http://10.0.0.1/", "events": EVENTS}, "url"),
        ({"url": "http://169.254.169.254/", "events": EVENTS}, "url"),
        ({"url": "https://8.8.8.8/", "events": []}, "events"),
        ({"url": "https://8.8.8.8/", "events": "model.*"}, "events"),
        ({"url": "https://8.8.8.8/", "events": ["model.*", 1]}, "events[1]"),
        ({"url": "https://8.8.8.8/", "events": ["model.*", "modell.*"]}, "events"),
        ({"url": "https://8.8.8.8/", "events": EVENTS, "secret": "short"}, "secret"),
        ({"url": "https://8.8.8.8/", "events": EVENTS, "event": 1}, "event"),
    ],
)
async def test_wrong_bodies_are_refused_by_field(tmp_path: Path, document: Any, param: str) -> None:
    async with open_house(tmp_path, models={}) as house:
        status, answer = await ask(house, "POST", "/register", json=document)
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_request", param)
        assert param in answer["error"]["message"] or param == "url"
    assert not (tmp_path / "state").exists()


async def test_unknown_webhooks_and_deliveries_are_404(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, models={}) as house:
        for _ in range(2):
            asks = [("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/redeliver"), ("POST", "/enable")]
            for method, path in asks:
                status, answer = await ask(house, method, "/wh_none" + path)
                assert (status, answer["error"]["code"]) == (404, "webhook_not_found")
            made = await register(house, target.url)
        status, _ = await ask(house, "POST", f"/{made['id']}/redeliver", json={"delivery": "msg_none"})
        assert status == 404


async def test_s34_own_doors_and_models_are_no_targets(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.post("/v1/models/chat/start?wait=true", {}) as response:
            ports = [(await response.json())["port"], *(int(url.rsplit(":", 1)[1]) for url in house.urls.values())]
        for port in ports:
            for host in ("127.0.0.1", "localhost", "[::1]", "127.1", "0.0.0.0"):
                document = {"url": f"http://{host}:{port}/v1/models/chat/stop", "events": EVENTS}
                status, answer = await ask(house, "POST", "/register", json=document)
                assert (status, answer["error"]["param"]) == (400, "url")


@pytest.mark.parametrize(
    ("door", "allowed"),
    [
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "api_keys": ["secret"]}, True),
        ({"host": "127.0.0.1", "allow_management": "never"}, False),
    ],
)
async def test_s08_every_path_needs_the_right_to_manage(
    tmp_path: Path, target: Target, door: dict[str, Any], allowed: bool
) -> None:
    settings = {"allow_cidrs": ["127.0.0.0/8"]}
    async with open_house(tmp_path, models={}, door=Door.model_validate(door), outbound=settings) as house:
        headers = {"Authorization": "Bearer secret"}
        body = {"url": target.url, "events": EVENTS}
        status, answer = await ask(house, "POST", "/register", json=body, headers=headers)
        assert status == (200 if allowed else 403)
        webhook = answer.get("id", "wh_none")
        asks = [("GET", ""), ("GET", f"/{webhook}"), ("POST", f"/{webhook}/test"), ("POST", f"/{webhook}/redeliver")]
        for method, path in [*asks, ("POST", f"/{webhook}/enable"), ("DELETE", f"/{webhook}")]:
            assert (await ask(house, method, path, headers=headers))[0] == (200 if allowed else 403)
            if allowed:
                assert (await ask(house, method, path))[0] == 401, "the door asks for its key"


async def test_s34_no_spelling_leads_inside(tmp_path: Path, target: Target) -> None:
    """Refused at once, or, where the name means nothing to anyone now, when it is dialled."""
    door = Door(host="0.0.0.0", allow_management="always", rate_limits=NO_LIMITS)
    async with open_house(tmp_path, models={}, door=door, webhooks={"attempt_seconds": 2}) as house:
        for spelling in SPELLINGS:
            body = {"url": spelling.replace("PORT", str(target.port)), "events": EVENTS}
            status, answer = await ask(house, "POST", "/register", json=body)
            assert status in (200, 400), spelling
            if status == 200:
                tested = (await ask(house, "POST", f"/{answer['id']}/test"))[1]
                assert tested["success"] is False, spelling
                await ask(house, "DELETE", f"/{answer['id']}")
            else:
                assert answer["error"]["param"] == "url"
    assert target.letters == []


async def test_s35_only_programs_of_this_machine_may_name_it(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, models={}, door=Door(trusted_proxies=("127.0.0.0/8",), api_keys=("k",))) as house:
        body, key = {"url": target.url, "events": EVENTS}, {"Authorization": "Bearer k"}
        stranger = {"X-Forwarded-For": "203.0.113.9"}
        status, answer = await ask(house, "POST", "/register", json=body, headers=key | stranger)
        assert (status, answer["error"]["param"]) == (400, "url")
        assert (await ask(house, "POST", "/register", json=body, headers=key))[0] == 200


async def test_a_state_folder_that_cannot_be_written_is_503_and_models_still_serve(
    tmp_path: Path, target: Target
) -> None:
    (tmp_path / "state").write_text("in the way")
    async with open_house(tmp_path) as house:
        body = {"url": target.url, "events": EVENTS}
        status, answer = await ask(house, "POST", "/register", json=body)
        assert (status, answer["error"]["code"]) == (503, "service_unavailable")
        assert "state_folder" in answer["error"]["message"]
        async with house.chat() as response:
            assert response.status == 200


async def test_a_hanging_target_delays_no_request(tmp_path: Path, target: Target) -> None:
    target.behaviour = hang
    async with open_house(tmp_path) as house:
        for number in range(5):
            await register(house, f"{target.url}/{number}")
        async with house.chat() as response:
            assert response.status == 200
        await target.wait(5)
        began = time.monotonic()
        for _ in range(10):
            async with house.chat(max_tokens=1) as response:
                assert response.status == 200
        assert time.monotonic() - began < 2
