"""Calls to models, from every way that leads to one: no model's process is asked to follow a URL."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from doors import open_house
from talking import asking, connected

from llamarunner.errors import InvalidRequest
from llamarunner.server.upstream import Body
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


async def nothing(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def showing(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def chat(url: str, **fields: Any) -> dict[str, Any]:
    asked = asking(messages=showing(url), **fields)
    del asked["message"]
    return asked


@pytest.mark.parametrize("url", ["TARGET", "file:///etc/passwd"])
async def test_s18_a_websocket_does_not_lead_around_the_guard(tmp_path: Path, target: Target, url: str) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(chat(url.replace("TARGET", target.url), id="a"))
        refused = (await talk.until_end("a"))[-1]
        assert (refused["type"], refused["error"]["param"]) == ("error", "messages[0].content[0].image_url")
        assert house.journal("request") == []
        assert target.letters == []


async def test_images_of_a_websocket_reach_the_model_as_data(tmp_path: Path, target: Target) -> None:
    async with open_house(tmp_path, outbound=FETCH) as house, connected(house) as talk:
        await talk.send(chat(target.url, id="a"))
        assert (await talk.until_end("a"))[-1]["type"] == "chat_end"
        body = json.dumps(house.journal("parts"))
        assert base64.b64encode(PNG).decode() in body
        assert target.url not in body


async def test_a_chat_is_cancelled_while_its_image_is_fetched(tmp_path: Path, target: Target) -> None:
    target.behaviour = nothing
    async with open_house(tmp_path, outbound=FETCH) as house, connected(house) as talk:
        await talk.send(chat(target.url, id="a"))
        await house.until(lambda: bool(target.letters))
        await talk.send({"type": "cancel", "id": "a"})
        assert (await talk.until_end("a"))[-1]["finish_reason"] == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_fetch_is_part_of_the_exchange_that_the_end_of_the_server_waits_for(
    tmp_path: Path, target: Target, stream: bool
) -> None:
    target.behaviour = nothing
    async with open_house(tmp_path, outbound=FETCH) as house, asyncio.TaskGroup() as group:

        async def ask() -> tuple[int, str]:
            async with house.chat(messages=showing(target.url), stream=stream) as response:
                return response.status, await response.text()

        asked = group.create_task(ask())
        await house.until(lambda: bool(target.letters))
        house.services.drain.begin()
        assert not await house.services.drain.idle(0.05), "nothing is under way"
        house.services.drain.expire()
        status, text = await asked
        assert status == 503
        assert "shutting down" in text


@pytest.mark.parametrize(
    "document",
    [
        {"messages": showing("file:///etc/passwd")},
        {"grammar": "(" * 1000},
    ],
)
def test_a_body_cannot_be_made_of_what_is_not_safe(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Body(document)


def test_nothing_is_kept_of_a_document_but_its_bytes() -> None:
    document = {"model": "x", "messages": showing("data:image/png;base64,AAAA")}
    body = Body(document)
    assert json.loads(body.data) == document
    assert not any(value is document for value in (getattr(body, name) for name in Body.__slots__))
