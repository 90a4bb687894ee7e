"""What a client learns that is refused because its model is not ready: how far it is, and when to ask again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

ANTHROPIC = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
FIELDS = {"stage", "fraction", "seconds", "estimate_seconds"}


async def refused(house: House, path: str = "/v1/chat/completions", door: str = "lmstudio", **more: Any) -> Any:
    """Ask and be refused; returns the error, the header Retry-After, and what it says of the load."""
    async with house.client.post(house.urls[door] + path, json={**ANTHROPIC, **more}) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (503, "service_unavailable"), error
        return int(response.headers["Retry-After"]), error.get("loading")


async def load_in_vain(house: House, name: str = "chat") -> None:
    async with house.client.post(f"{house.url}/v1/models/{name}/start") as response:
        assert (await response.json())["status"] == "starting"


async def stop(house: House) -> None:
    async with house.client.post(house.url + "/v1/models/chat/stop") as response:
        assert response.status == 200


@pytest.mark.parametrize("door", ["ollama", "lmstudio"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_full_queue_says_how_much_is_loaded_and_when_the_rest_will_be(
    tmp_path: Path, door: str, path: str
) -> None:
    flags = ("--fake-never", "--fake-print", "." * 40)
    async with open_house(tmp_path, flags=flags, supervisor={"queue_length": 1}) as house:
        await load_in_vain(house)
        child = None
        while child is None or child.log.loaded_fraction() is None:
            instance = house.services.supervisor.instance(house.services.catalog.find("chat"))
            child = instance.child if instance else None
            await asyncio.sleep(0.005)
        wait, loading = await refused(house, path, door)
        assert loading.keys() == FIELDS
        assert (loading["stage"], loading["fraction"]) == ("loading", 0.4)
        assert loading["seconds"] > 0
        assert loading["estimate_seconds"] == pytest.approx(loading["seconds"] * 1.5, abs=0.01)
        assert wait == max(1, -(-loading["estimate_seconds"] // 1))
        async with house.client.get(house.url + "/v1/models/chat/status") as response:
            shown = (await response.json())["progress"]
        assert shown.keys() == FIELDS
        assert shown["estimate_seconds"] >= loading["estimate_seconds"]
        await stop(house)


async def test_the_estimate_goes_by_the_last_load_where_the_runtime_tells_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.4"), supervisor={"queue_length": 1}) as house:
        await load_in_vain(house)
        assert (await refused(house))[1]["estimate_seconds"] is None
        await house.until(lambda: house.services.supervisor.loaded() == ["chat"])
        took = house.services.supervisor.unit(house.services.catalog.find("chat")).load_seconds  # type: ignore[union-attr]
        assert took is not None
        assert took > 0.4
        await stop(house)
        await load_in_vain(house)
        wait, loading = await refused(house)
        assert (loading["stage"] in ("starting", "loading"), loading["fraction"]) == (True, None)
        assert 0 < loading["estimate_seconds"] <= round(took, 3)
        assert wait == max(1, -(-loading["estimate_seconds"] // 1))
        await house.until(lambda: house.services.supervisor.loaded() == ["chat"])


async def test_a_model_that_found_no_room_in_time_is_queued(tmp_path: Path) -> None:
    rules = {"max_loaded_models": 1, "queue_timeout_seconds": 0.2}
    async with open_house(tmp_path, models={"chat": {}, "other": {}}, supervisor=rules) as house:
        talking = asyncio.gather(asyncio.wait_for(_talk(house, "other"), 5))
        await house.wait_for("request")
        wait, loading = await refused(house)
        assert wait == 5
        assert loading == {"stage": "queued", "fraction": None, "seconds": None, "estimate_seconds": None}
        await talking


async def _talk(house: House, model: str) -> None:
    async with house.chat(model=model, fake={"prefill": 1.2}) as response:
        assert response.status == 200


async def test_a_model_that_cannot_be_loaded_says_when_it_is_tried_again(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-exit", "1")) as house:
        entry = house.services.catalog.find("chat")
        for pause in (1, 2):
            wait, loading = await refused(house)
            assert (loading["stage"], loading["estimate_seconds"]) == ("queued", None)
            assert 1 <= wait <= pause
        unit = house.services.supervisor.unit(entry)
        assert unit is not None
        unit.failures.extend([unit.failures[-1]] * 3)
        unit.not_before += 30
        wait, loading = await refused(house)
        assert (loading["stage"], loading["estimate_seconds"]) == ("queued", None)
        assert 25 < wait <= 32


async def test_what_is_refused_for_other_reasons_says_nothing_of_a_load(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.chat() as response:
            assert response.status == 200
        house.services.drain.begin()
        assert await refused(house) == (5, None)


async def test_a_stream_that_has_begun_is_told_in_its_last_event(tmp_path: Path) -> None:
    server = {"sse_keepalive_seconds": 0.05}
    async with open_house(tmp_path, flags=("--fake-late", "0.3", "--fake-exit", "1"), server=server) as house:
        async with house.chat(stream=True) as response:
            assert response.status == 200
            events = [line for line in (await response.text()).splitlines() if line.startswith("data:")]
        error = json.loads(events[-1].removeprefix("data:"))["error"]
        assert error["loading"]["stage"] == "queued"
