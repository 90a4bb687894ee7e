"""Remote images through the doors: what the model's process gets, and what nobody fetches."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door
from llamarunner.server import remote_images
from tests.test_outbound import SPELLINGS
from tests.webhooks.target import Target, opened

PNG = b"\x89PNG, as far as anyone looks"
FETCH = {"fetch_images": True}


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with opened() as target:
        target.behaviour = picture
        yield target


async def picture(request: web.Request) -> web.StreamResponse:
    return web.Response(body=PNG, content_type="image/png")


def chat(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "chat", "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, *parts]}]}


def anthropic(url: str) -> dict[str, Any]:
    parts = [{"type": "image", "source": {"type": "url", "url": url}}]
    return {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": parts}]}


def responses(url: str) -> dict[str, Any]:
    return {"model": "chat", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}


async def ask(house: House, document: dict[str, Any], path: str = "/v1/chat/completions") -> tuple[int, Any]:
    async with house.post(path, document) as response:
        return response.status, await response.json()


async def refused(house: House, document: dict[str, Any], path: str = "/v1/chat/completions") -> tuple[str, str]:
    """Expect a 400; returns the field and the message."""
    status, answer = await ask(house, document, path)
    assert status == 400, answer
    assert house.journal("request") == [], "the model was not asked"
    return answer["error"]["param"], answer["error"]["message"]


async def test_s18_images_are_not_fetched_unless_the_owner_wants_it(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path) as house:
        param, message = await refused(house, chat("data:image/png;base64,AAAA", target.url))
        assert param == "messages[0].content[2].image_url"
        assert "data URL" in message
        assert "outbound.fetch_images" in message
        assert (await refused(house, anthropic(target.url), "/v1/messages"))[0] == "messages[0].content[0].source"
        assert (await refused(house, responses(target.url), "/v1/responses"))[0] == "input[0].content[0].image_url"
        escaped = json.dumps(chat(target.url)).replace("image_url", "image\\u005furl").replace("http", "h\\u0074tp")
        async with house.client.post(house.url + "/v1/chat/completions", data=escaped) as response:
            assert response.status == 400
        async with house.post("/v1/chat/completions", chat("data:image/png;base64,AAAA")) as response:
            assert response.status == 200
    assert target.letters == []


@pytest.mark.parametrize("fetch", [False, True])
async def test_s18_files_are_never_read(tmp_path: Path, fetch: bool) -> None:
    async with open_house(tmp_path, outbound={"fetch_images": fetch}) as house:
        for url in ("file:///etc/passwd", "/etc/passwd", "ftp://a.example/"):
            assert (await refused(house, chat(url)))[0] == "messages[0].content[1].image_url"


async def test_fetched_images_reach_the_model_as_data(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, outbound=FETCH) as house:
        assert (await ask(house, chat(target.url, target.url)))[0] == 200
        assert (await ask(house, anthropic(target.url), "/v1/messages"))[0] == 200
        text = base64.b64encode(PNG).decode()
        bodies = [json.dumps(one) for one in house.journal("parts")]
        assert [body.count(text) for body in bodies] == [2, 1]
        assert all(target.url not in body for body in bodies)


async def test_s34_images_lead_nowhere_inside(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, door=Door(host="0.0.0.0", rate_limits=NO_LIMITS), outbound=FETCH) as house:
        for url in (
            target.url,
            target.url.replace("127.0.0.1", "localhost"),
            "http://169.254.169.254/latest/meta-data/",
        ):
            param, message = await refused(house, chat(url))
            assert param == "messages[0].content[1].image_url"
            assert "not public" in message
    async with open_house(tmp_path, outbound=FETCH) as house:
        own = house.urls["ollama"] + "/health"
        assert "not public" in (await refused(house, chat(own)))[1]
    assert target.letters == []


async def test_s34_no_spelling_leads_inside(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, door=Door(host="0.0.0.0", rate_limits=NO_LIMITS), outbound=FETCH) as house:
        for spelling in SPELLINGS:
            if not spelling.startswith("data:"):
                await refused(house, chat(spelling.replace("PORT", str(target.port))))
    assert target.letters == []


@pytest.mark.parametrize("kind", ["text", "missing", "redirect", "large", "packed"])
async def test_what_is_no_image_is_refused(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(remote_images, "MAX_BYTES", 1000)
    location, packed = {"Location": "/other"}, {"Content-Encoding": "gzip"}
    answers: dict[str, dict[str, Any]] = {
        "text": {"text": "hello"},
        "missing": {"status": 404},
        "redirect": {"status": 302, "headers": location},
        "large": {"body": b"x" * 1001, "content_type": "image/png"},
        "packed": {"body": PNG, "content_type": "image/png", "headers": packed},
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(**answers[kind])

    target.behaviour = answer
    async with open_house(tmp_path, outbound=FETCH) as house:
        assert (await refused(house, chat(target.url)))[0] == "messages[0].content[1].image_url"
    assert [letter.path for letter in target.letters] == ["/hook"]


async def test_only_so_many_are_fetched(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, outbound=FETCH) as house:
        assert (await refused(house, chat(*[target.url] * 9)))[0] == "messages[0].content[9].image_url"
        assert target.letters == []
        assert (await ask(house, chat(*[target.url] * 8)))[0] == 200
