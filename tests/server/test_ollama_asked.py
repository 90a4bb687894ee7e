"""How a request wants its model to be run: for how long, and with which options."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from doors import House, open_house

from llamarunner.config import Door
from llamarunner.fleet.runtimes.llama_server import DEFAULT_SLOTS
from llamarunner.fleet.unit import State, Unit
from tests.server.test_ollama_api import BERT, CHAT, GENERATE, Json, ask, lines, post, said


def unit(house: House, name: str = "chat") -> Unit:
    return house.services.supervisor._schedule.units[name]


def contexts(house: House) -> list[str | None]:
    """The context that each child was started with."""
    argv = [one["argv"] for one in house.journal("start")]
    return [one[one.index("--ctx-size") + 1] if "--ctx-size" in one else None for one in argv]


async def talk(house: House, **more: Any) -> Json:
    status, answer = await ask(house, CHAT, said(stream=False, **more))
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer


async def test_keep_alive_holds_until_another_one_is_given_or_the_model_is_unloaded(tmp_path: Path) -> None:
    async with open_house(tmp_path, supervisor={"ttl_seconds": 100}) as house:
        for keep_alive, ttl in (
            (None, 100),
            ("10m", 600),
            (None, 600),
            (1.5, 1.5),
            (-1, None),
            (None, None),
            ("7s", 7),
        ):
            await talk(house, keep_alive=keep_alive)
            assert unit(house).terms.ttl == ttl
        async with house.post("/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": ""}]}):
            assert unit(house).terms.ttl == 7, "other languages do not change it"
        await talk(house, keep_alive=0)
        await house.until(lambda: unit(house).state is State.UNLOADED)
        await talk(house)
        assert unit(house).terms.ttl == 100


async def test_who_comes_while_it_is_unloaded_gets_a_process_that_stays(tmp_path: Path) -> None:
    rules = {"ttl_seconds": 100, "stop_grace_seconds": 0.3}
    async with open_house(tmp_path, supervisor=rules, flags=("--fake-stubborn",)) as house:
        await talk(house, options={"num_ctx": 64}, keep_alive=0)
        await house.until(lambda: unit(house).state is State.STOPPING)
        await talk(house)
        assert unit(house).terms.ttl == 100
        assert contexts(house) == ["64", None]


async def test_unloading_lets_running_answers_finish(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        running = asyncio.ensure_future(lines(house, CHAT, said({"tokens": 20, "delay": 0.02})))  # noqa: TID251
        await house.wait_for("token")
        assert (await ask(house, GENERATE, {"model": "chat", "keep_alive": 0}))[0] == 200
        assert house.services.supervisor.loaded() == ["chat"]
        assert len(await running) == 21
        await house.until(lambda: house.services.supervisor.loaded() == [])


async def test_unloading_ends_what_was_started_by_hand(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.post("/v1/models/chat/start?wait=true", {}) as response:
            assert response.status == 200
        await talk(house)
        assert unit(house).expires is None
        await ask(house, GENERATE, {"model": "chat", "keep_alive": 0})
        await house.until(lambda: house.services.supervisor.loaded() == [])


async def test_another_num_ctx_is_another_process_once_the_others_are_done(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}}) as house:
        running = asyncio.ensure_future(lines(house, CHAT, said({"tokens": 20, "delay": 0.02})))  # noqa: TID251
        await house.wait_for("token")
        await talk(house, options={"num_ctx": 256})
        assert running.done(), "they were not disturbed"
        assert (await running)[-1]["done"] is True
        assert contexts(house) == [None, "256"]
        await talk(house, options={"num_ctx": 256, "temperature": 1})
        await talk(house)
        assert contexts(house) == [None, "256"], "the same, or none, changes nothing"
        await talk(house, options={"num_ctx": 512})
        assert contexts(house) == [None, "256", "512"]


async def test_what_the_model_has_anyway_starts_nothing(tmp_path: Path) -> None:
    header = {"metadata": {"llama.context_length": 1024}}
    async with open_house(tmp_path, models={"chat": header}) as house:
        for options in ({}, {"num_ctx": 1024}, {"num_ctx": 9999}, {"num_gpu": -1, "use_mmap": True, "num_thread": 0}):
            await talk(house, options=options)
        assert contexts(house) == [None]
        await ask(house, CHAT, {"model": "chat", "options": {"num_ctx": 1}})
        assert contexts(house) == [None, "4"], "Ollama's least"


async def test_no_wish_makes_the_model_useless_for_the_others(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}}) as house:
        await talk(house, options={"num_batch": 1, "num_thread": 4096})
        settings = house.services.supervisor.ready()[0].settings
        assert settings.batch_size == DEFAULT_SLOTS, "llama.cpp aborts with fewer rows than slots"
        assert settings.threads == os.cpu_count(), "more would be in each other's way"


async def test_what_the_owner_started_otherwise_stays_for_those_who_do_not_mind(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.post("/v1/models/chat/start?wait=true", {"ctx_size": 300, "threads": 1}) as response:
            assert response.status == 200
        await talk(house)
        await talk(house, options={"num_ctx": 300})
        await talk(house, options={"num_thread": 1})
        assert contexts(house) == ["300"]
        await talk(house, options={"num_ctx": 400})
        assert contexts(house) == ["300", "400"]
        assert house.services.supervisor.ready()[0].settings.threads == 1, "what nobody wished otherwise stays"


async def test_those_who_wish_for_different_things_are_all_served(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await asyncio.gather(*(talk(house, options={"num_ctx": 100 + count % 2}) for count in range(6)), talk(house))
        assert set(contexts(house)) == {"100", "101"}


async def test_those_who_may_not_manage_models_take_them_as_they_are(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(allow_management="never")) as house:
        await talk(house, options={"num_ctx": 128}, keep_alive=1)
        assert contexts(house) == [None]
        assert unit(house).terms.ttl != 1
        status, answer = await ask(house, GENERATE, {"model": "chat", "keep_alive": 0})
        assert (status, "managed" in answer["error"]) == (403, True)
        assert house.services.supervisor.loaded() == ["chat"]
        status, answer = await ask(house, CHAT, said(options={"num_ctx": "x"}))
        assert status == 500


async def test_embeddings_have_their_own_process_and_wishes(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"embed": BERT}) as house:
        asked = {"model": "embed", "input": "a", "keep_alive": "3m", "options": {"num_ctx": 64}}
        assert (await ask(house, "/api/embed", asked))[0] == 200
        assert contexts(house) == ["64"]
        assert unit(house, "embed (embed)").terms.ttl == 180
        await ask(house, GENERATE, {"model": "embed", "keep_alive": 0})
        await house.until(lambda: house.services.supervisor.loaded() == [])


async def test_pages_of_other_sites_cannot_send_a_form(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(cors_origins=("https://app.example",))) as house:
        url = house.urls["ollama"] + CHAT
        async with house.client.post(url, data=b"{}", headers={"Origin": "https://app.example"}) as response:
            assert response.status == 415
            assert "error" in await response.json()
        async with post(house, CHAT, {}) as response:
            assert response.status == 400
