"""Keys that may do less than the door, or more; and those who guess them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door

MODELS: dict[str, dict[str, Any]] = {"chat": {}, "tiny-a": {}, "tiny-b": {}}
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def limited(requests: int) -> dict[str, Any]:
    return {**NO_LIMITS.model_dump(), "requests_per_minute": requests}


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def door(*keys: Any, **more: Any) -> Door:
    return Door.model_validate({"api_keys": keys, "trusted_proxies": ["127.0.0.1"], **more})


async def statuses(house: House, count: int, **headers: str) -> list[int]:
    found = []
    for _ in range(count):
        async with house.client.get(house.url + "/v1/models", headers=headers) as response:
            found.append(response.status)
    return found


# ── models ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_sees_and_uses_its_models_and_no_others(tmp_path: Path) -> None:
    keys = door("all", {"key": "small", "models": ["TINY-*"]}, {"key": "none", "models": []})
    async with open_house(tmp_path, models=MODELS, door=keys) as house:
        for key, seen in [("all", [*MODELS]), ("small", ["tiny-a", "tiny-b"]), ("none", []), ("all", [*MODELS])]:
            async with house.client.get(house.url + "/v1/models", headers=bearing(key)) as response:
                assert [model["id"] for model in (await response.json())["data"]] == seen
            for name in MODELS:
                wanted = 200 if name in seen else 404
                async with house.client.get(f"{house.url}/v1/models/{name}", headers=bearing(key)) as response:
                    assert response.status == wanted
                asked = house.post("/v1/chat/completions", {**ASK, "model": name}, headers=bearing(key))
                async with asked as response:
                    assert response.status == wanted
                    if wanted == 404:
                        message = (await response.json())["error"]["message"]
                        assert all((other in message) == (other in seen) for other in MODELS if other != name)


async def test_a_key_cannot_see_what_the_door_hides(tmp_path: Path) -> None:
    keys = door({"key": "k", "models": ["*"]}, models=["chat"])
    async with (
        open_house(tmp_path, models=MODELS, door=keys) as house,
        house.client.get(house.url + "/v1/models", headers=bearing("k")) as response,
    ):
        assert [model["id"] for model in (await response.json())["data"]] == ["chat"]


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_with_limits_of_its_own_has_them_wherever_it_is_used(tmp_path: Path) -> None:
    keys = door("plain", {"key": "own", "rate_limits": limited(3)}, rate_limits=limited(2))
    async with open_house(tmp_path, models={}, door=keys) as house:
        assert await statuses(house, 2, **bearing("own"), **{"X-Forwarded-For": "192.0.2.1"}) == [200, 200]
        assert await statuses(house, 2, **bearing("own"), **{"X-Forwarded-For": "192.0.2.2"}) == [200, 429]
        assert await statuses(house, 3, **bearing("plain"), **{"X-Forwarded-For": "192.0.2.1"}) == [200, 200, 429]
        async with house.client.get(house.url + "/v1/models", headers=bearing("own")) as response:
            assert response.headers["X-RateLimit-Limit"] == "3"


async def test_keys_of_one_name_share_their_limits(tmp_path: Path) -> None:
    own = {"name": "family", "rate_limits": limited(3)}
    keys = door({"key": "a", **own}, {"key": "b", **own}, {"key": "c", "rate_limits": limited(3)})
    async with open_house(tmp_path, models={}, door=keys) as house:
        assert await statuses(house, 2, **bearing("a")) == [200, 200]
        assert await statuses(house, 2, **bearing("b")) == [200, 429]
        assert await statuses(house, 3, **bearing("c")) == [200] * 3


# ── guessing ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_address_has_ten_guesses_a_minute(tmp_path: Path) -> None:
    """Then even the right key is refused: an answer that told it from others would make guessing possible."""
    async with open_house(tmp_path, models={}, door=door("right")) as house:
        assert await statuses(house, 2, **bearing("right")) == [200, 200]
        assert await statuses(house, 12, **bearing("wrong")) == [401] * 10 + [429] * 2
        async with house.client.get(house.url + "/v1/models", headers=bearing("right")) as response:
            assert response.status == 429
            assert 1 <= int(response.headers["Retry-After"]) <= 60
            assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        assert await statuses(house, 1, **bearing("right"), **{"X-Forwarded-For": "192.0.2.1"}) == [200]
        async with house.client.get(house.url + "/health") as response:
            assert response.status == 200


@pytest.mark.parametrize("limit", [3, 20])
async def test_no_key_is_no_guess_and_counts_as_a_request(tmp_path: Path, limit: int) -> None:
    async with open_house(tmp_path, models={}, door=door("right", rate_limits=limited(limit))) as house:
        assert await statuses(house, limit + 1) == [401] * limit + [429]
        assert await statuses(house, 1, **bearing("right"), **{"X-Forwarded-For": "192.0.2.1"}) == [200]


async def test_guesses_are_not_forgotten_by_new_settings(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door("right")) as house:
        assert await statuses(house, 10, **bearing("wrong")) == [401] * 10
        for view in house.services.views:
            view.configure(door("right", "another"))
        assert await statuses(house, 1, **bearing("another")) == [429]
