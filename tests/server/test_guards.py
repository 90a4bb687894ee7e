"""What every request passes, from the outside and on both doors."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import Door

DOORS = pytest.mark.parametrize("name", ["ollama", "lmstudio"])
CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
SITE = "https://app.example"


def locked(**more: Any) -> Door:
    return Door.model_validate({"api_keys": ["key"], **more})


@DOORS
async def test_errors_are_in_the_callers_language(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path) as house:
        url = house.urls[name]
        async with house.client.post(url + "/v1/chat/completions", json={**CHAT, "model": "nobody"}) as response:
            assert response.status == 404
            assert response.content_type == "application/json"
            error = (await response.json())["error"]
            assert error["code"] == "model_not_found"
            assert error["param"] == "model"
            assert {"ollama": "Available: chat.", "lmstudio": "(e.g., chat)."}[name] in error["message"]
        async with house.client.post(url + "/v1/messages", json={**CHAT, "model": "nobody"}) as response:
            assert response.status == 404
            answer = await response.json()
            assert (answer["type"], answer["error"]["type"]) == ("error", "not_found_error")
            assert answer["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/messages", "POST"),
        ("DELETE", "/v1/models/a/b", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_with_allow(tmp_path: Path, method: str, path: str, allow: str) -> None:
    async with open_house(tmp_path, models={}) as house:
        async with house.client.request(method, house.url + path) as response:
            assert response.status == 405
            assert response.headers["Allow"] == allow
            body = await response.json()
        said = f"Unexpected endpoint or method. ({method} {path})"
        assert body["error"]["message"] == said
        if "messages" not in path:
            assert body["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/v2", "/v1", "/v1/models/", "/slots", "/props", "/v1/chat/completions/"])
async def test_an_unknown_path_is_404(tmp_path: Path, path: str) -> None:
    """S-15: what a model's process offers beyond our table cannot be reached."""
    async with open_house(tmp_path, models={}) as house, house.client.get(house.url + path) as response:
        assert response.status == 404
        error = (await response.json())["error"]
        if path.startswith("/v1/"):
            assert error["code"] in ("not_found", "model_not_found")
        else:
            assert error == f"Unexpected endpoint or method. (GET {path})"


async def test_every_answer_has_the_callers_id_or_a_new_one(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for given, kept in [("abc-123", True), ("a b", False), ("x" * 129, False), ("caf\u00e9", False), (None, False)]:
            headers = {"X-Request-ID": given} if given else {}
            async with house.client.get(house.url + "/v1/nothing", headers=headers) as response:
                got = response.headers["X-Request-ID"]
                assert (got == given) if kept else re.fullmatch(r"[0-9a-f]{16}", got)
                assert response.headers["Server"] == "LlamaRunner"
        async with house.chat(stream=True) as response:
            assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-ID"])
            assert response.headers["Server"] == "LlamaRunner"


async def test_one_line_for_each_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llamarunner.access")
    async with open_house(tmp_path, models={}) as house:
        headers = {"X-Request-ID": "id-1"}
        async with house.client.get(house.url + "/v1/models/%1b%0a?key=secret", headers=headers) as response:
            assert response.status == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "llamarunner.access"]
    assert len(lines) == 1
    assert re.fullmatch(r"id-1 127\.0\.0\.1 GET /v1/models/%1B%0A 404 \d+\.\d ms door=lmstudio", lines[0])


async def test_a_mistake_of_ours_is_500_without_a_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_house(tmp_path) as house:
        object.__setattr__(house.services, "supervisor", None)  # the house is now broken
        async with house.chat() as response:
            assert response.status == 500
            text = await response.text()
            assert json.loads(text)["error"]["code"] == "server_error"
            assert "Traceback" not in text
            assert "AttributeError" not in text
            assert response.headers["X-Request-ID"] in text
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@DOORS
async def test_s04_a_strange_host_is_403(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path, models={}) as house:
        for path in ("/health", "/v1/models", "/"):
            async with house.client.get(house.urls[name] + path, headers={"Host": "evil.example"}) as response:
                assert response.status == 403
                assert (await response.json())["error"]["code"] == "forbidden"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_s19_a_form_of_another_site_reaches_no_model(tmp_path: Path, kind: str) -> None:
    async with open_house(tmp_path) as house:
        headers = {"Origin": "https://evil.example", "Content-Type": kind}
        async with house.client.post(
            house.url + "/v1/chat/completions", data=json.dumps(CHAT), headers=headers
        ) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers
        assert house.journal("start") == []


async def test_s19_pages_must_say_json(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(cors_origins=(SITE,))) as house:
        body = json.dumps(CHAT)
        for kind, status in [("text/plain", 415), ("application/json", 200), ("application/json; charset=utf-8", 200)]:
            headers = {"Origin": SITE, "Content-Type": kind}
            async with house.client.post(house.url + "/v1/chat/completions", data=body, headers=headers) as response:
                assert response.status == status


async def test_without_a_page_any_content_type_will_do(tmp_path: Path) -> None:
    """curl -d sends a form's Content-Type."""
    async with open_house(tmp_path) as house:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with house.client.post(
            house.url + "/v1/chat/completions", data=json.dumps(CHAT), headers=headers
        ) as response:
            assert response.status == 200


async def test_cors_is_off_until_an_origin_is_allowed(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        for method in ("GET", "OPTIONS"):
            headers = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
            async with house.client.request(method, house.url + "/v1/models", headers=headers) as response:
                assert response.status == 403
                assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_cors_for_an_allowed_origin(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=locked(cors_origins=[SITE])) as house:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, x-stainless-os",
        }
        url = house.url + "/v1/chat/completions"
        async with house.client.options(url, headers={"Origin": SITE, **asked}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == SITE
            assert response.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert response.headers["Vary"] == "Origin"
        for document, status in [({**CHAT, "stream": True}, 200), ({**CHAT, "messages": []}, 400)]:
            headers = {"Origin": SITE, "Authorization": "Bearer key"}
            async with house.client.post(url, json=document, headers=headers) as response:
                assert response.status == status
                assert response.headers["Access-Control-Allow-Origin"] == SITE
                assert "Access-Control-Allow-Credentials" not in response.headers


@DOORS
async def test_a_locked_door_asks_for_a_key_everywhere_but_for_probes(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path, door=locked()) as house:
        url = house.urls[name]
        async with house.client.get(url + "/health") as response:
            assert response.status == 200
        async with house.client.get(url + "/") as response:
            assert response.status == (200 if name == "ollama" else 404)
        for path in ("/v1/models", "/v1/models/chat", "/nothing", "/v1/"):
            async with house.client.get(url + path) as response:
                assert response.status == 401
                assert (await response.json())["error"]["code"] == "invalid_api_key"
        async with house.client.post(url + "/v1/messages", json=CHAT, headers={"x-api-key": "no"}) as response:
            assert response.status == 401
            assert (await response.json())["error"]["type"] == "authentication_error"
        async with house.client.post(url + "/v1/messages", json=CHAT, headers={"x-api-key": "key"}) as response:
            assert response.status == 200


EXPECTING = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n"
    "Expect: 100-continue\r\n{more}Connection: close\r\n\r\n"
)


@pytest.mark.parametrize(
    ("host", "length", "more", "status"),
    [
        ("localhost", 10**9, "Authorization: Bearer key\r\n", 413),
        ("localhost", 10, "", 401),
        ("localhost", 10, "Authorization: Bearer key\r\nContent-Encoding: gzip\r\n", 415),
        ("evil.example", 10, "Authorization: Bearer key\r\n", 403),
    ],
)
async def test_f26_nobody_is_asked_to_send_what_will_be_refused(
    tmp_path: Path, host: str, length: int, more: str, status: int
) -> None:
    async with open_house(tmp_path, models={}, door=locked()) as house:
        answer = await house.request(EXPECTING.format(host=host, length=length, more=more))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"100 Continue" not in answer


async def test_f26_a_welcome_body_is_asked_for(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _expect_continue(house, json.dumps(CHAT))


async def _expect_continue(house: House, body: str) -> None:
    reader, writer = await asyncio.open_connection(*house.address)
    writer.write(EXPECTING.format(host="localhost", length=len(body), more="").encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body.encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        "GET /{secret} HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nAuthorization: Bearer {secret}\r\n",
        "GET / HTTP/1.1\r\n{secret}: x\r\n",
        "GET / HTTP/1.1\r\nX-Key sk-SECRET\r\n",
        "sk-SECRET / HTTP/1.1\r\n",
        "GET / sk-SECRET\r\n",
        "GET http://sk-SECRET:x/ HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nContent-Length: sk-SECRET\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: sk-SECRET\r\n",
    ],
)
async def test_nothing_of_an_unreadable_request_is_quoted(
    tmp_path: Path, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_house(tmp_path, models={}) as house:
        said = await house.request(
            head.format(secret="sk-SECRET" + "x" * 9000) + "Host: localhost\r\nConnection: close\r\n\r\n"
        )
    assert said[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400")
    assert b"SECRET" not in said
    assert "SECRET" not in caplog.text
    assert (b"too long" in said) == ("{secret}" in head)
