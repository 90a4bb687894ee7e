"""Webhooks of a whole server: told of its own start and end, and surviving its death."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from tests.house.conftest import House, start, with_fakes
from tests.webhooks.target import hang, opened

ALL = {"events": ["*"]}


async def post(house: House, path: str, document: object) -> Any:
    async with aiohttp.ClientSession() as http, http.post(house.url + path, json=document) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def pending(house: House, count: int) -> None:
    """Wait until so many deliveries are in the outbox."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(10):
        told = -1
        while told != count:
            async with http.get(f"{house.url}/v1/webhooks") as response:
                told = (await response.json())["data"][0]["pending"]


async def stopped(house: House) -> None:
    house.process.terminate()
    assert await asyncio.wait_for(house.process.wait(), 20) == 0


async def test_a_server_tells_of_its_end_and_of_its_next_start(tmp_path: Path, fake_llama: Path) -> None:
    settings = with_fakes(tmp_path, fake_llama, {"a": []}, webhooks={"state_folder": str(tmp_path / "state")})
    async with opened() as target:
        house = await start(tmp_path, settings)
        secret = (await post(house, "/v1/webhooks/register", {"url": target.url, **ALL}))["secret"]
        await post(house, "/v1/models/a/start?wait=true", {})
        await stopped(house)
        told = ["model.loading", "model.started", "server.stopping", "model.stopped"]
        assert [letter.event for letter in target.letters] == told
        await stopped(await start(tmp_path, settings))
        assert [letter.event for letter in target.letters[4:]] == ["server.started", "server.stopping"]
        for letter in target.letters:
            letter.verify(secret)


async def test_f63_a_killed_server_delivers_after_its_restart_under_the_same_id(
    tmp_path: Path, fake_llama: Path
) -> None:
    """Killed again and again while its target hangs: nothing is lost, and no id ever has two bodies."""
    sections = {"webhooks": {"state_folder": str(tmp_path / "state"), "attempt_seconds": 60}}
    settings = with_fakes(tmp_path, fake_llama, {"a": []}, **sections)
    async with opened() as target:
        target.behaviour = hang
        house = await start(tmp_path, settings)
        await post(house, "/v1/webhooks/register", {"url": target.url, "events": ["model.*"]})
        await post(house, "/v1/models/a/start?wait=true", {})
        await pending(house, 2)
        for life in range(1, 4):
            await target.wait(life)
            house.process.kill()
            await house.process.wait()
            house = await start(tmp_path, settings)
        await target.wait(4)
        assert len({(letter.id, letter.body) for letter in target.letters}) == 1
        target.behaviour = 200
        house.process.kill()
        await house.process.wait()
        house = await start(tmp_path, settings)
        letters = (await target.wait(6))[4:]
        assert [letter.event for letter in letters] == ["model.loading", "model.started"]
        assert letters[0].id == target.letters[0].id
        await stopped(house)
    bodies: dict[str, set[bytes]] = {}
    for letter in target.letters:
        bodies.setdefault(letter.id, set()).add(letter.body)
    assert {len(many) for many in bodies.values()} == {1}
