"""The series of models' processes: told apart, and asked for without waking or keeping anything."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from doors import House, open_house
from prometheus_client import Metric

from llamarunner.server import children

TOLD = ("--metrics",)


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FRESH_SECONDS", 0.0)


async def families(house: House) -> dict[str, Metric]:
    return {family.name: family for family in await house.services.children.families()}


def labels(family: Metric) -> set[tuple[str, str]]:
    return {(sample.labels["model"], sample.labels["task"]) for sample in family.samples}


async def use(house: House, **document: Any) -> None:
    async with house.chat(**document) as response:
        assert response.status == 200
        await response.read()


async def test_the_series_are_told_apart(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "other": {}}
    async with open_house(tmp_path, models=models, flags=TOLD) as house:
        await use(house)
        await use(house, model="other")
        async with house.post("/v1/embeddings", {"model": "chat", "input": "a"}) as response:
            assert response.status == 200
        seen = await families(house)
    assert seen.keys() == {"llamacpp_tokens_predicted", "llamacpp_n_tokens_max", "llamacpp_requests_processing"}
    for family in seen.values():
        assert labels(family) == {("chat", "generate"), ("other", "generate"), ("chat", "embed")}
    counter, maximum = seen["llamacpp_tokens_predicted"], seen["llamacpp_n_tokens_max"]
    assert {sample.name for sample in counter.samples} == {"llamacpp_tokens_predicted_total"}
    assert {sample.name for sample in maximum.samples} == {"llamacpp_n_tokens_max"}
    assert (counter.type, maximum.type) == ("counter", "gauge")


async def test_nothing_is_woken(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=TOLD) as house:
        assert await families(house) == {}
        async with house.client.get(house.url + "/metrics") as response:
            assert response.status == 200
        assert house.services.supervisor.instance(house.services.catalog.find("chat")) is None
        assert house.journal("start") == []


async def test_asking_keeps_nothing_loaded(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=TOLD, supervisor={"ttl_seconds": 0.3}) as house:
        await use(house)
        entry = house.services.catalog.find("chat")
        used = house.services.supervisor.last_used(entry)
        began = time.monotonic()
        while house.services.supervisor.loaded():
            assert time.monotonic() < began + 3, "asked again and again, it stays"
            async with house.client.get(house.url + "/metrics") as response:
                assert response.status == 200
        assert house.journal("metrics"), "it was asked"
        assert house.services.supervisor.last_used(entry) == used
        await house.until(lambda: house.services.supervisor.instance(entry) is None)


async def test_a_model_that_does_not_answer_is_left_out_and_goes_on(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=(*TOLD, "--fake-slow-metrics", "30")) as house:
        await use(house)
        began = time.monotonic()
        assert await families(house) == {}
        assert 0.9 < time.monotonic() - began < 2
        await use(house)
        assert len(house.journal("start")) == 1


async def test_a_model_that_was_killed_is_left_out(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=TOLD) as house:
        await use(house)
        assert await families(house)
        instance = house.services.supervisor.instance(house.services.catalog.find("chat"))
        assert instance
        assert instance.child
        psutil.Process(instance.child.pid).kill()
        assert await families(house) == {}


async def test_those_who_ask_at_once_share_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FRESH_SECONDS", 60.0)
    async with open_house(tmp_path, flags=TOLD) as house:
        await use(house)
        answers = await asyncio.gather(*(families(house) for _ in range(20)))
        assert all("llamacpp_tokens_predicted" in seen for seen in answers)
        assert len(house.journal("metrics")) == 1


async def test_a_runtime_without_metrics_is_left_out(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await use(house)
        assert await families(house) == {}
        assert house.journal("metrics"), "it was asked"


@pytest.mark.parametrize("said", ["llamacpp:a{", "llamacpp:a x", "\x00\xff", 'llamacpp:a{model="x} 1', "# TYPE", ""])
async def test_what_cannot_be_parsed_is_no_series(tmp_path: Path, said: str) -> None:
    answers = ["HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n", said]
    async with open_house(tmp_path, program=("scripted_llama.py", json.dumps(answers))) as house:
        async with house.post("/v1/models/chat/start?wait=true", {}) as response:
            assert response.status == 200
        assert await families(house) == {}


async def test_a_label_of_the_childs_own_does_not_lie_about_the_model(tmp_path: Path) -> None:
    answers = ["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 'llamacpp:a{model="other",slot="1"} 2\n']
    async with open_house(tmp_path, program=("scripted_llama.py", json.dumps(answers))) as house:
        async with house.post("/v1/models/chat/start?wait=true", {}) as response:
            assert response.status == 200
        (sample,) = (await families(house))["llamacpp_a"].samples
    assert sample.labels == {"model": "chat", "task": "generate", "slot": "1"}
