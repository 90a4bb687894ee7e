"""Limits as clients meet them: on real sockets, told apart by what a trusted proxy says of them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door

DOORS = pytest.mark.parametrize("name", ["ollama", "lmstudio"])
CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
LONG = {"tokens": 1000, "delay": 0.01}
SITE = "https://app.example"
TOLD = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy")


def limited(requests: int | None = None, concurrent: int | None = None, streams: int | None = None) -> dict[str, Any]:
    """Those limits and no others, as settings."""
    wanted = {
        "requests_per_minute": requests,
        "concurrent_requests": concurrent,
        "streaming_connections": streams,
    }
    return {**NO_LIMITS.model_dump(), **wanted}


def door(limits: dict[str, Any], **more: Any) -> Door:
    return Door.model_validate({"rate_limits": limits, **more})


def of(client: str) -> dict[str, str]:
    return {"X-Forwarded-For": client}


async def status(house: House, path: str = "/v1/models", name: str = "lmstudio", **options: Any) -> int:
    async with house.client.get(house.urls[name] + path, **options) as response:
        return response.status


def running(house: House) -> list[tuple[int, int]]:
    """The requests and streams that run, for each client of each door."""
    usages = [usage for view in house.services.views for usage in view.limiter._clients.values()]
    return [(usage.running, usage.streams) for usage in usages if usage.running or usage.streams]


# ── the rate ───────────────────────────────────────────────────────────────────────────────────────────────────────


@DOORS
async def test_the_request_over_the_rate_is_429_as_the_specification_has_it(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path, door=Door()) as house:
        assert [await status(house, name=name) for _ in range(100)] == [200] * 100
        async with house.client.post(house.urls[name] + "/v1/chat/completions", json=CHAT) as response:
            assert response.status == 429
            seconds = int(response.headers["Retry-After"])
            assert 30 < seconds <= 60
            error = (await response.json())["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert error["message"] == (
                f"Rate limit exceeded. Try again in {seconds} seconds. "
                f'(proxies.{name}.rate_limits; "exempt_loopback": true frees this machine)'
            )
            assert error["type"] == "rate_limit_error"
            assert response.headers["X-RateLimit-Limit"] == "100"
            assert response.headers["X-RateLimit-Remaining"] == "0"
            assert response.headers["X-RateLimit-Reset"] == str(seconds)
            assert response.headers["RateLimit"] == f'"requests";r=0;t={seconds}'
        async with house.client.post(house.urls[name] + "/v1/messages", json=CHAT) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) <= seconds
            answer = await response.json()
            assert (answer["type"], answer["error"]["type"]) == ("error", "rate_limit_error")
        assert house.journal("start") == []


async def test_each_door_has_budgets_of_its_own(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(limited(2))) as house:
        assert [await status(house, name="ollama") for _ in range(3)] == [200, 200, 429]
        assert [await status(house, name="lmstudio") for _ in range(3)] == [200, 200, 429]


async def test_clients_behind_a_trusted_proxy_are_told_apart(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(limited(2), trusted_proxies=["127.0.0.0/8"])) as house:
        for client in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert [await status(house, headers=of(client)) for _ in range(3)] == [200, 200, 429]
        assert await status(house, headers=of("2001:db8::ffff:1")) == 429  # of the same /64
        assert await status(house, headers=of("6.6.6.6, 192.0.2.1")) == 429
        assert await status(house, headers={"Forwarded": "for=192.0.2.1"}) == 429
        assert await status(house, headers={"Forwarded": "for=192.0.2.3"}) == 200


async def test_a_client_that_no_proxy_vouches_for_cannot_choose_its_name(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(limited(2))) as house:
        assert [await status(house, headers=of(f"192.0.2.{n}")) for n in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("exempt", [True, False])
async def test_loopback_is_treated_as_the_settings_say(tmp_path: Path, exempt: bool) -> None:
    limits = {**limited(2), "exempt_loopback": exempt}
    async with open_house(tmp_path, models={}, door=door(limits, trusted_proxies=["127.0.0.1"])) as house:
        assert await status(house, headers=of("192.0.2.1")) == 200
        assert await status(house, headers=of("192.0.2.1")) == 200
        assert await status(house, headers=of("192.0.2.1")) == 429
        assert [await status(house) for _ in range(4)] == ([200] * 4 if exempt else [200, 200, 429, 429])
        async with house.client.get(house.url + "/v1/models", headers=of("192.0.2.1")) as refused:
            assert "exempt_loopback" not in await refused.text(), "which would not free a client from elsewhere"


async def test_probes_and_preflights_are_free(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(limited(1), cors_origins=[SITE])) as house:
        preflight = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
        for _ in range(3):
            assert await status(house, "/health") == 200
            assert await status(house, "/", name="ollama") == 200
            assert await status(house, "/metrics") != 429
            async with house.client.options(house.url + "/v1/models", headers=preflight) as response:
                assert response.status == 204
        assert await status(house) == 200
        assert await status(house) == 429
        assert await status(house, "/health") == 200


async def test_every_answer_says_truly_what_remains(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=door(limited(10))) as house:
        asked: list[tuple[str, str, dict[str, Any] | None, int, int]] = [
            ("GET", "/v1/models", None, 200, 9),
            ("GET", "/health", None, 200, 9),
            ("GET", "/nothing", None, 404, 8),
            ("PUT", "/v1/models", None, 405, 7),
            ("POST", "/v1/messages", {"model": "chat"}, 400, 6),
            ("POST", "/v1/chat/completions", CHAT, 200, 5),
            ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200, 4),
            ("POST", "/v1/chat/completions", {**CHAT, "fake": {"status": 500}}, 500, 3),
        ]
        for method, path, document, wanted, remaining in asked:
            async with house.client.request(method, house.url + path, json=document) as response:
                assert response.status == wanted, path
                assert response.headers["X-RateLimit-Remaining"] == str(remaining)
                assert response.headers["X-RateLimit-Limit"] == "10"
                assert 1 <= int(response.headers["X-RateLimit-Reset"]) <= 60
                assert response.headers["RateLimit-Policy"] == '"requests";q=10;w=60'
                assert re.fullmatch(rf'"requests";r={remaining};t=\d+', response.headers["RateLimit"])
                assert response.headers["X-RateLimit-Remaining-Requests"] == str(remaining)
        async with house.client.get(house.url + "/v1/models", headers={"Host": "evil.example"}) as response:
            assert response.status == 403
            assert response.headers["X-RateLimit-Remaining"] == "3"


async def test_where_nothing_is_limited_nothing_is_said(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path, models={}, door=door(limited())) as house,
        house.client.get(house.url + "/v1/models") as response,
    ):
        assert not [name for name in TOLD if name in response.headers]


async def test_pages_of_other_sites_may_read_the_limits(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path, models={}, door=door(limited(10), cors_origins=[SITE])) as house,
        house.client.get(house.url + "/v1/models", headers={"Origin": SITE}) as response,
    ):
        exposed = {name.strip() for name in response.headers["Access-Control-Expose-Headers"].split(",")}
        assert {name for name in response.headers if "RateLimit" in name} | {"Retry-After"} <= exposed


async def test_a_body_over_the_rate_is_not_asked_for(tmp_path: Path) -> None:
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n"
    async with open_house(tmp_path, models={}, door=door(limited(1))) as house:
        assert await status(house) == 200
        for more in ("Expect: 100-continue\r\n", ""):
            answer = await house.request(head.format(length=10_000_000, more=more), until=b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 429 ")


async def test_the_log_has_the_client_behind_the_proxy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llamarunner.access")
    async with open_house(tmp_path, models={}, door=Door(trusted_proxies=("127.0.0.1",))) as house:
        assert await status(house, headers=of("192.0.2.1")) == 200
    lines = [record.getMessage() for record in caplog.records if record.name == "llamarunner.access"]
    assert [line.split()[1] for line in lines] == ["192.0.2.1"]


async def test_openais_client_knows_the_error(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path, models={}, door=door(limited(1))) as house,
        openai.AsyncOpenAI(base_url=house.url + "/v1", api_key="any", max_retries=0) as client,
    ):
        await client.models.list()
        with pytest.raises(openai.RateLimitError, match=r"Try again in \d+ seconds") as caught:
            await client.models.list()
        assert caught.value.code == "rate_limit_exceeded"


# ── at the same time ───────────────────────────────────────────────────────────────────────────────────────────────


@DOORS
async def test_requests_at_the_same_time(tmp_path: Path, name: str) -> None:
    limits = door(limited(None, 2), trusted_proxies=["127.0.0.1"])
    async with open_house(tmp_path, door=limits) as house, asyncio.TaskGroup() as group:
        url = house.urls[name] + "/v1/chat/completions"
        slow = {**CHAT, "fake": {"prefill": 0.5}}
        asking = [group.create_task(house.client.post(url, json=slow).__aenter__()) for _ in range(2)]
        await house.until(lambda: running(house) == [(2, 0)])
        async with house.client.post(url, json=CHAT) as refused:
            assert refused.status == 429
            assert refused.headers["Retry-After"] == "1"
            error = (await refused.json())["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert error["message"].startswith("Too many requests at the same time; the limit is 2. (proxies.")
        async with house.client.post(url, json=CHAT, headers=of("192.0.2.1")) as other:
            assert other.status == 200
        assert [(await task).status for task in asking] == [200, 200]
        async with house.client.post(url, json=CHAT) as again:
            assert again.status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_streams_at_the_same_time(tmp_path: Path, path: str) -> None:
    async with open_house(tmp_path, door=door(limited(None, 4, 2))) as house:
        streams = [await house.post(path, {**CHAT, "stream": True, "fake": LONG}) for _ in range(2)]
        async with house.post(path, {**CHAT, "stream": True}) as refused:
            assert refused.status == 429
            assert refused.headers["Retry-After"] == "1"
            answer = await refused.json()
            assert answer["error"]["message"].startswith("Too many streams at the same time; the limit is 2. (proxies.")
            assert answer["error"]["type"] == "rate_limit_error"
        async with house.post(path, CHAT) as whole:
            assert whole.status == 200
        assert running(house) == [(2, 2)]
        streams[0].close()
        await house.until(lambda: running(house) == [(1, 1)])
        async with house.post(path, {**CHAT, "stream": True}) as admitted:
            assert admitted.status == 200
            await admitted.read()
        streams[1].close()
        await house.until(lambda: running(house) == [])


ENDINGS: dict[str, dict[str, Any]] = {
    "its end": {},
    "an error before the first byte": {"fake": {"status": 500}},
    "a crash in the middle": {"fake": {"tokens": 3, "then": "die"}},
    "an unknown model": {"model": "nobody"},
    "a hang-up before the first byte": {"fake": {"prefill": 30}},
    "a hang-up in the middle": {"fake": LONG},
    "the end of the server": {"fake": LONG},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_place_is_given_back_after(tmp_path: Path, ending: str, stream: bool) -> None:
    async with open_house(tmp_path, door=door(limited(None, 1, 1))) as house:
        asking = asyncio.ensure_future(_answer(house, {**CHAT, **ENDINGS[ending], "stream": stream}))  # noqa: TID251
        if "hang-up" in ending or "server" in ending:
            await house.wait_for("token" if stream and "middle" in ending else "request")
            assert running(house) == [(1, int(stream))]
            if "hang-up" in ending:
                asking.cancel()
            else:
                house.services.drain.expire()
        await asyncio.wait([asking])
        await house.until(lambda: running(house) == [])
        async with house.chat(stream=stream) as response:
            assert response.status == 200
            assert await response.read()
        await house.until(lambda: running(house) == [])


async def _answer(house: House, document: dict[str, Any]) -> None:
    async with house.post("/v1/chat/completions", document) as response:
        await response.read()


# ── a storm, and new settings ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_storm_of_one_client_leaves_the_others_untouched(tmp_path: Path) -> None:
    """Thousands of requests over the limit, pipelined on kept connections, while another client goes on asking."""
    body = json.dumps(CHAT)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.66\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    async with open_house(tmp_path, door=door(limited(20), trusted_proxies=["127.0.0.1"])) as house:
        async with asyncio.TaskGroup() as group:
            storm = [group.create_task(_fire(house, request, 500)) for _ in range(10)]
            calm = []
            for _ in range(20):
                async with house.client.post(
                    house.url + "/v1/chat/completions", json=CHAT, headers=of("192.0.2.1")
                ) as response:
                    calm.append((response.status, response.headers["X-RateLimit-Remaining"]))
        assert calm == [(200, str(remaining)) for remaining in reversed(range(20))]
        answered = [answer for task in storm for answer in task.result()]
        assert {status: answered.count(status) for status in set(answered)} == {b"200": 20, b"429": 4980}
        assert len(house.journal("request")) == 40
        assert running(house) == []


async def _fire(house: House, request: bytes, count: int) -> list[bytes]:
    """Send many requests on one connection; returns the statuses."""
    reader, writer = await asyncio.open_connection(*house.address)
    statuses: list[bytes] = []
    try:
        while len(statuses) < count:
            writer.write(request * 50)
            for _ in range(50):
                head = await reader.readuntil(b"\r\n\r\n")
                statuses.append(head[9:12])
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length
                await reader.readexactly(int(length[1]))
    finally:
        writer.close()
    return statuses


async def test_new_settings_keep_what_clients_have_used(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(limited(2))) as house:
        view = next(view for view in house.services.views if view.name == "lmstudio")
        assert [await status(house) for _ in range(3)] == [200, 200, 429]
        view.configure(door(limited(4)))
        assert [await status(house) for _ in range(3)] == [200, 200, 429]
        view.configure(door(limited(1)))
        assert await status(house) == 429
        view.configure(door(limited()))
        assert [await status(house) for _ in range(5)] == [200] * 5
        view.configure(door(limited(5)))
        assert await status(house) == 429
