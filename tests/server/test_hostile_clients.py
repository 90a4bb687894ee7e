"""Clients that mean harm or are badly broken, through both doors; the ids are those of the fault catalogue."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from llamarunner.config import ModelSettings
from llamarunner.server import listener
from tests.dialects.test_strict_json import FRAGMENTS, REFUSED, VALUES
from tests.server.test_admission import OTHER_HOSTS, OWN_HOSTS
from tests.server.test_keys import door

DOORS = pytest.mark.parametrize("name", ["ollama", "lmstudio"])
UNREAD = re.compile(r"/stop$|/webhooks/{|/v1/audio/|/api/(experimental|me|signout|blobs)")  # there is none, or a form
ANSWER = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
QUICK = ("scripted_llama.py", json.dumps([ANSWER]))  # a child that starts at once, and is content with anything


def reading(name: str) -> list[str]:
    """The paths of a door that read a body."""
    posts = sorted(path for method, path in listener._routes(name) if method == "POST")
    return [path.replace("{id:.+}", "chat") for path in posts if not UNREAD.search(path)]


def error_of(body: bytes) -> Any:
    """The error in an answer of either shape."""
    answer = json.loads(body)
    assert answer.keys() in ({"error"}, {"type", "error", "request_id"})
    return answer["error"]


async def raw(house: House, name: str, *lines: str | bytes) -> tuple[int, bytes]:
    """Send the lines of a request as they are; returns the status, 0 for none, and the body."""
    text = b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in (*lines, "", ""))
    url = URL(house.urls[name])
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(text)
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    except ConnectionError:
        return 0, b""
    finally:
        writer.close()
    return int(head.split()[1]) if head else 0, body


# ── hosts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@DOORS
async def test_s04_hosts(tmp_path: Path, name: str) -> None:
    assert len(OWN_HOSTS + OTHER_HOSTS) > 30
    async with open_house(tmp_path, models={}, door=door(allowed_hosts=["Box.Example"])) as house:
        statuses = {}
        for host in OWN_HOSTS + OTHER_HOSTS:
            status, body = await raw(house, name, "GET /v1/models HTTP/1.1", f"Host: {host}", "Connection: close")
            statuses[host] = status
            assert status == 200 or error_of(body)["code"] in ("forbidden", "invalid_request")
    spaces = [host for host in OTHER_HOSTS if host.strip() in OWN_HOSTS]  # which stand around every header's value
    assert {host for host, status in statuses.items() if status == 200} == {*OWN_HOSTS, *spaces}
    assert {status for status in statuses.values() if status != 200} == {403}


# ── keys ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ODD_KEYS: dict[str, bytes] = {
    "quotes": b"\"right'",
    "SQL": b"' OR '1'='1",
    "NUL": b"right\x00",
    "NUL before": b"\x00right",
    "line break": b"right\nX-Evil: 1",
    "Latin-1": b"caf\xe9",
    "UTF-8": "clé-запрос-鍵".encode(),
    "surrogate": b"\xed\xa0\x80",
    "control": b"\x1b[31m",
    "percent": b"%72ight",
    "glob": b"*",
    "list": b"right,right",
    "JSON": b'{"$ne":null}',
    "8 kB": b"k" * 8000,
    "1 MB": b"k" * 1_000_000,
    "the right one, and more": b"right right",
}


@DOORS
@pytest.mark.parametrize("header", ["x-api-key: ", "Authorization: Bearer ", "Authorization: Basic "])
async def test_s25_no_odd_key_opens_or_breaks_anything(tmp_path: Path, name: str, header: str) -> None:
    """Each comes from an address of its own, which has its own guesses."""
    async with open_house(tmp_path, models={}, door=door("right")) as house:
        request = ("GET /v1/models HTTP/1.1", "Host: localhost", "Connection: close")
        for number, (kind, key) in enumerate(ODD_KEYS.items()):
            client = f"X-Forwarded-For: 192.0.2.{number}"
            status, body = await raw(house, name, *request, client, header.encode() + key)
            assert status in (400, 401) or (status == 0 and kind == "1 MB"), (kind, status)
            assert status == 0 or error_of(body)["code"] in ("invalid_api_key", "invalid_request")
        status, _ = await raw(house, name, *request, "x-api-key: right")
        assert status == 200


@DOORS
@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": "Bearer right", "x-api-key": "right"}, "", 200),
        ({"Authorization": "Bearer right", "x-api-key": ""}, "", 200),
        ({"Authorization": "Basic eDp5", "x-api-key": "right"}, "", 200),
        ({"Authorization": "Bearer right", "x-api-key": "other"}, "", 400),
        ({"Authorization": "Bearer other", "x-api-key": "right"}, "", 400),
        ({"Authorization": "Bearer wrong", "x-api-key": "wrong"}, "", 401),
        ({}, "api_key=right", 401),
        ({}, "key=right&access_token=right&token=right", 401),
        ({"x-api-key": "wrong"}, "api_key=right", 401),
        ({"x-api-key": "right"}, "api_key=wrong", 200),
        ({"Cookie": "api_key=right"}, "", 401),
    ],
)
async def test_f36_credentials_count_in_one_place_only(
    tmp_path: Path, name: str, headers: dict[str, str], query: str, status: int
) -> None:
    async with (
        open_house(tmp_path, models={}, door=door("right", "other")) as house,
        house.client.get(f"{house.urls[name]}/v1/models?{query}", headers=headers) as response,
    ):
        assert response.status == status
        assert b"right" not in await response.read()


# ── documents ──────────────────────────────────────────────────────────────────────────────────────────────────────


@DOORS
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models/chat/start"])
async def test_f33_malformed_documents_are_400(tmp_path: Path, name: str, path: str) -> None:
    """An empty body is none at all where there need not be one."""
    async with open_house(tmp_path) as house:
        for kind, body in REFUSED.items():
            if body or not path.endswith("/start"):
                async with house.client.post(house.urls[name] + path, data=body) as response:
                    assert response.status == 400, kind
                    assert error_of(await response.read())["code"] == "invalid_request"
        assert house.journal("start") == []


@DOORS
async def test_f33_every_path_that_takes_a_document_refuses_malformed_ones(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path) as house:
        for path in reading(name):
            for kind in ("half", "NaN", "duplicate key", "lone surrogate", "UTF-16", "65 levels"):
                async with house.client.post(house.urls[name] + path, data=REFUSED[kind]) as response:
                    assert response.status == 400, (path, kind)
                    assert error_of(await response.read())
        assert house.journal("start") == []


NAMES = st.sampled_from(sorted(ModelSettings.model_fields)) | st.text(max_size=5)
FIELDS = st.sampled_from(["model", "messages", "stream", "prompt", "input", "tools", "response_format", "grammar"])
TEXTS = st.lists(FRAGMENTS, max_size=20).map(b"".join)
DOCUMENTS = (
    st.dictionaries(NAMES | FIELDS, VALUES, max_size=5).map(json.dumps).map(str.encode)
    | VALUES.map(json.dumps).map(str.encode)
    | TEXTS
)


@DOORS
async def test_f33_whatever_is_sent_nothing_of_ours_fails(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    loop = asyncio.get_running_loop()
    async with open_house(tmp_path, program=QUICK) as house:

        async def post(path: str, body: bytes) -> tuple[int, bytes]:
            async with house.client.post(house.urls[name] + path, data=body) as response:
                return response.status, await response.read()

        @settings(max_examples=250)
        @given(st.sampled_from(reading(name)), DOCUMENTS)
        def send(path: str, body: bytes) -> None:
            status, answer = asyncio.run_coroutine_threadsafe(post(path, body), loop).result(10)
            wrong = (400, 404, 500, 503) if path.startswith("/api/") else (400, 404, 503)  # Ollama has its own view
            assert status in (200, *wrong), (path, status, answer)
            assert status == 200 or error_of(answer)

        await asyncio.to_thread(send)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
