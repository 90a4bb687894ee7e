"""Loading models through LM Studio's sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from sdk_talking import Json, Line, dialled, named, stack

from llamarunner.config import NO_LIMITS, Door

MODELS: dict[str, dict[str, Any]] = {"chat": {}, "embed": {"architecture": "bert"}}


def load(key: str = "chat", config: Json | None = None, **more: Any) -> Json:
    return {"modelKey": key, "loadConfigStack": config or stack(), **more}


def get(identifier: str = "chat", config: Json | None = None, **more: Any) -> Json:
    return {"identifier": identifier, "loadConfigStack": config or stack(), **more}


def kinds(packets: list[Json]) -> list[str]:
    """The types of packets; of progress only that there was some."""
    return list(dict.fromkeys(packet["type"] for packet in packets))


async def identifiers(line: Line) -> list[str]:
    return [one["identifier"] for one in (await line.rpc("listLoaded"))["result"]]


async def test_a_load_tells_its_progress_and_makes_an_instance(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        packets, end = await line.stream("loadModel", load())
        assert (kinds(packets), end["type"]) == (["resolved", "progress", "success"], "channelClose")
        assert packets[0]["info"]["modelKey"] == "chat"
        told = [packet["progress"] for packet in packets if packet["type"] == "progress"]
        assert (told[0], told[-1], told) == (0.0, 1.0, sorted(told))
        assert (packets[-1]["info"]["identifier"], packets[-1]["info"]["ttlMs"]) == ("chat", None)
        packets, _ = await line.stream("loadModel", load("CHAT", ttlMs=5000))
        assert (packets[-1]["info"]["identifier"], packets[-1]["info"]["ttlMs"]) == ("chat:2", 5000)
        assert await identifiers(line) == ["chat", "chat:2"]
        assert len(house.journal("start")) == 2


async def test_an_instance_may_have_a_name(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        packets, _ = await line.stream("loadModel", load(identifier="mine"))
        assert packets[-1]["info"]["identifier"] == "mine"
        assert await identifiers(line) == ["chat", "mine"]
        assert (await line.rpc("getModelInfo", {"specifier": named("mine")}))["result"]["modelKey"] == "chat"
        async with house.chat(model="mine") as response:
            assert (response.status, (await response.json())["model"]) == (200, "chat:2")
        for taken in ("mine", "chat"):
            _, end = await line.stream("loadModel", load(identifier=taken))
            assert end["error"]["errorData"]["param"] == "identifier"
        await line.rpc("unloadModel", {"identifier": "mine"})
        packets, _ = await line.stream("loadModel", load(identifier="mine"))
        assert packets[-1]["info"]["identifier"] == "mine"


async def test_get_or_load_takes_what_is_there(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        packets, end = await line.stream("getOrLoad", get(loadTtlMs=7000))
        assert (kinds(packets), end["type"]) == (["startLoading", "loadProgress", "loadSuccess"], "channelClose")
        assert (packets[0]["identifier"], packets[-1]["info"]["ttlMs"]) == ("chat", 7000)
        for name in ("chat", "Chat"):
            packets, _ = await line.stream("getOrLoad", get(name, loadTtlMs=9000))
            assert kinds(packets) == ["alreadyLoaded"]
            assert (packets[0]["info"]["identifier"], packets[0]["info"]["ttlMs"]) == ("chat", 7000)
        assert len(house.journal("start")) == 1
        await line.stream("loadModel", load(identifier="mine"))
        packets, _ = await line.stream("getOrLoad", get("mine"))
        assert packets[0]["info"]["identifier"] == "mine"


async def test_what_makes_way_is_told(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "other": {}, "third": {}}
    options: dict[str, Any] = {"supervisor": {"only_last_jit_model": True}, "models": models}
    async with open_house(tmp_path, **options) as house, dialled(house, "llm") as line:
        await line.stream("loadModel", load("third"))
        await line.stream("getOrLoad", get("other"))
        packets, _ = await line.stream("getOrLoad", get())
        assert kinds(packets) == ["unloadingOtherJITModel", "startLoading", "loadProgress", "loadSuccess"]
        assert packets[0]["info"]["identifier"] == "other"
        assert await identifiers(line) == ["third", "chat"]


async def test_two_who_want_the_same_model_share_a_load(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.3")) as house, dialled(house, "llm") as line:
        channels = [await line.open("getOrLoad", get()) for _ in range(2)]
        ended: list[str] = []
        while len(ended) < 2:
            frame = await line.next("channelSend", "channelClose")
            if frame["type"] == "channelClose":
                ended.append(frame["channelId"])
        assert sorted(ended) == channels
        assert len(house.journal("start")) == 1


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        (load("nothing"), "generic.pathNotFound"),
        (load("embed"), "generic.domainMismatch"),
        (get("nothing"), "generic.pathNotFound"),
        (get("embed"), "generic.domainMismatch"),
    ],
    ids=["load-nothing", "load-other", "get-nothing", "get-other"],
)
async def test_what_is_no_llm_is_told_so(tmp_path: Path, parameter: Json, code: str) -> None:
    async with open_house(tmp_path, models=MODELS) as house, dialled(house, "llm") as line:
        packets, end = await line.stream("loadModel" if "modelKey" in parameter else "getOrLoad", parameter)
        assert (packets, end["error"]["displayData"]["code"]) == ([], code)
        assert house.journal("start") == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"ttlMs": 0}, "ttlMs"),
        ({"ttlMs": 1e15}, "ttl_seconds"),
        ({"loadConfigStack": stack(llm__load__contextLength=1.5)}, "llm.load.contextLength"),
        ({"loadConfigStack": stack(llm__load__numParallelSessions=5000)}, "parallel"),
        ({"loadConfigStack": stack(llm__load__llama__acceleration__offloadRatio=2)}, None),
        ({"loadConfigStack": {"layers": [{}]}}, "layers[0].layerName"),
    ],
)
async def test_mistakes_are_told_with_their_place(tmp_path: Path, change: Json, param: str | None) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        packets, end = await line.stream("loadModel", load() | change)
        wanted = param or "llm.load.llama.acceleration.offloadRatio"
        assert (packets, end["error"]["errorData"]["param"]) == ([], wanted)
        assert house.journal("start") == []


async def test_the_context_is_what_one_request_can_use(tmp_path: Path) -> None:
    config = stack(llm__load__contextLength=256, llm__load__numParallelSessions=2, llm__load__useUnifiedKvCache=False)
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.stream("loadModel", load(config=config))
        argv = house.journal("start")[0]["argv"]
        assert argv[argv.index("--ctx-size") + 1] == "512"


async def test_a_load_that_fails_says_why(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-exit", "3")) as house, dialled(house, "llm") as line:
        for endpoint, parameter in (("loadModel", load()), ("getOrLoad", get())):
            _, end = await line.stream(endpoint, parameter)
            assert (end["type"], "exit" in end["error"]["title"]) == ("channelError", True)
        assert await identifiers(line) == []


async def cancelled(house: House, line: Line, endpoint: str, parameter: Json) -> None:
    channel = await line.open(endpoint, parameter)
    await line.packet(channel, "progress", "loadProgress")
    await house.wait_for("start")
    await line.stop(channel)
    packets, end = await line.until_end(channel)
    assert end["type"] == "channelClose"
    assert "success" not in str(packets).lower()


async def test_who_cancels_a_load_of_its_own_ends_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "30")) as house, dialled(house, "llm") as line:
        await cancelled(house, line, "loadModel", load())
        assert house.services.supervisor.ready() == []
        assert house.services.supervisor.instances(house.services.catalog.find("chat")) == []


async def test_who_cancels_a_load_for_all_only_leaves(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.5")) as house, dialled(house, "llm") as line:
        await cancelled(house, line, "getOrLoad", get())
        await house.until(lambda: house.services.supervisor.loaded() == ["chat"])


async def test_who_leaves_during_a_load_leaves_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.5")) as house:
        async with dialled(house, "llm") as line:
            channel = await line.open("loadModel", load())
            await line.packet(channel, "progress")
            await house.wait_for("start")
        supervisor, entry = house.services.supervisor, house.services.catalog.find("chat")
        await house.until(lambda: supervisor.instances(entry, leaving=True) == [])


async def test_strangers_load_only_as_requests_do(tmp_path: Path) -> None:
    door = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path, door=door) as house, dialled(house, "llm") as line:
        packets, end = await line.stream("loadModel", load())
        assert (packets, end["error"]["errorData"]["code"]) == ([], "forbidden")
        await line.stream("getOrLoad", get(config=stack(llm__load__contextLength=256), loadTtlMs=5))
        assert "--ctx-size" not in house.journal("start")[0]["argv"]
        assert (await line.rpc("listLoaded"))["result"][0]["ttlMs"] == 3_600_000
