"""Who may start and stop models: not the network, not without a key, and no web page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import Door


async def ask(house: House, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with house.client.request(method, f"{house.url}/v1/models/{path}", **options) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("door", "allowed"),
    [
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "192.168.1.5"}, False),
        ({"host": "0.0.0.0", "api_keys": ["secret"]}, True),
        ({"host": "0.0.0.0", "allow_management": "always"}, True),
        ({"host": "0.0.0.0", "api_keys": ["secret"], "allow_management": "never"}, False),
        ({"host": "127.0.0.2"}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1", "allow_management": "never"}, False),
    ],
)
async def test_s11_an_open_door_answers_and_refuses_what_changes_the_machine(
    tmp_path: Path, door: dict[str, Any], allowed: bool
) -> None:
    headers = {"Authorization": "Bearer secret"}
    async with open_house(tmp_path, door=Door.model_validate(door)) as house:
        for what in ("status", "info"):
            assert (await ask(house, "GET", f"chat/{what}", headers=headers))[0] == 200
        for what in ("start?wait=1", "stop"):
            code, answer = await ask(house, "POST", f"chat/{what}", headers=headers)
            assert code == (200 if allowed else 403)
            assert allowed or answer["error"]["code"] == "forbidden"
        assert len(house.journal("start")) == allowed


async def test_s11_a_reload_cannot_make_an_open_door_a_local_one(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(host="0.0.0.0")) as house:
        for view in house.services.views:
            view.configure(Door(host="127.0.0.1"))
        assert (await ask(house, "POST", "chat/start"))[0] == 403


async def test_s11_a_stranger_behind_a_reverse_proxy_on_this_machine_is_one(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(trusted_proxies=("127.0.0.0/8",))) as house:
        stranger = {"X-Forwarded-For": "203.0.113.9"}
        assert (await ask(house, "POST", "chat/start", headers=stranger))[0] == 403
        assert (await ask(house, "GET", "chat/status", headers=stranger))[0] == 200
        assert (await ask(house, "POST", "chat/start?wait=1"))[0] == 200


async def test_s08_keys_are_needed_for_every_route_of_management(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door.model_validate({"api_keys": ["secret"]})) as house:
        for method, what in (("GET", "status"), ("GET", "info"), ("POST", "start"), ("POST", "stop")):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": "secre"}):
                code, _ = await ask(house, method, f"chat/{what}", headers=headers)
                assert code == 401
        assert house.journal("start") == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json", None])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_s19_web_pages_cannot_start_or_stop_models(tmp_path: Path, origin: str, kind: str | None) -> None:
    headers = {"Origin": origin} | ({"Content-Type": kind} if kind else {})
    async with open_house(tmp_path) as house:
        for what in ("start", "stop"):
            for data in (None, b"{}"):
                code, _ = await ask(house, "POST", f"chat/{what}", headers=headers, data=data)
                assert code == 403
        assert house.journal("start") == []


async def test_s19_an_allowed_page_can_but_not_with_a_form(tmp_path: Path) -> None:
    page = "https://app.example.com"
    async with open_house(tmp_path, door=Door(cors_origins=(page,))) as house:
        form = {"Origin": page, "Content-Type": "text/plain"}
        code, _ = await ask(house, "POST", "chat/start", headers=form, data=b"{}")
        assert code == 415
        code, answer = await ask(house, "POST", "chat/start?wait=1", headers={"Origin": page}, json={})
        assert (code, answer["status"]) == (200, "loaded")
        code, answer = await ask(house, "POST", "chat/stop", headers={"Origin": page})
        assert (code, answer["status"]) == (200, "stopped")


@pytest.mark.parametrize("name", ["ollama", "lmstudio"])
async def test_a_key_may_lack_the_permission_to_manage(tmp_path: Path, name: str) -> None:
    keys = [{"key": "asks", "permissions": []}, {"key": "manages", "permissions": ["manage"]}, "all"]
    async with open_house(tmp_path, door=Door.model_validate({"api_keys": keys})) as house:
        house.urls["lmstudio"] = house.urls[name]
        for key, allowed in (("asks", False), ("manages", True), ("asks", False), ("all", True)):
            headers = {"Authorization": f"Bearer {key}"}
            chat = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
            async with house.post("/v1/chat/completions", chat, headers=headers) as response:
                assert response.status == 200
            for what in ("start?wait=1", "stop"):
                code, answer = await ask(house, "POST", f"chat/{what}", headers=headers)
                assert code == (200 if allowed else 403), key
                assert allowed or "permission" in answer["error"]["message"]
            _, told = await ask(house, "GET", "chat/info", headers=headers)
            assert told["path"].startswith("/") == allowed, "paths of this machine are for those who manage it"


@pytest.mark.parametrize(
    ("door", "key", "allowed"),
    [
        ({}, None, True),
        ({"host": "0.0.0.0"}, None, False),
        ({"host": "0.0.0.0", "api_keys": ["k"]}, "k", True),
        ({"host": "0.0.0.0", "api_keys": [{"key": "k", "permissions": ["plugins"]}]}, "k", True),
        ({"api_keys": [{"key": "k", "permissions": ["manage"]}]}, "k", False),
        ({"api_keys": [{"key": "k", "permissions": []}]}, "k", False),
    ],
    ids=["here", "stranger", "key", "key with it", "key without it", "key with nothing"],
)
async def test_plugins_are_for_this_machine_and_for_keys_with_the_permission(
    tmp_path: Path, door: dict[str, Any], key: str | None, allowed: bool
) -> None:
    async with open_house(tmp_path, models={}, door=Door.model_validate(door)) as house:
        view = next(view for view in house.services.views if view.name == "lmstudio")
        view.recognise("127.0.0.1", {"Authorization": f"Bearer {key}"} if key else {})
        assert view.may_use_plugins("127.0.0.1") is allowed
