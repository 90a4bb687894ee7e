"""What LM Studio's sockets tell of loaded models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doors import open_house
from sdk_talking import LONG, Json, asking, dialled, named, stack
from write_gguf import write_model

from llamarunner.config import NO_LIMITS, ApiKey, Door

MODELS: dict[str, dict[str, Any]] = {"chat": {}, "embed": {"architecture": "bert"}}


def fields(config: Json) -> Json:
    return {field["key"]: field["value"] for field in config["fields"]}


async def test_an_instance_has_all_that_clients_want(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house, dialled(house, "llm") as line:
        assert (await line.rpc("listLoaded"))["result"] == []
        await line.load("chat")
        (info,) = (await line.rpc("listLoaded"))["result"]
        assert info == {
            "type": "llm",
            "modelKey": "chat",
            "format": "gguf",
            "displayName": "chat",
            "publisher": "local",
            "path": "local/chat/chat.gguf",
            "sizeBytes": (tmp_path / "models/chat.gguf").stat().st_size,
            "indexedModelIdentifier": "chat",
            "deviceIdentifier": None,
            "architecture": "llama",
            "quantization": {"name": "F32", "bits": 32},
            "maxContextLength": 4096,
            "vision": False,
            "trainedForToolUse": False,
            "identifier": "chat",
            "instanceReference": info["instanceReference"],
            "ttlMs": 3_600_000,
            "lastUsedTime": info["lastUsedTime"],
            "contextLength": 4096,
        }
        assert isinstance(info["lastUsedTime"], int)
        async with dialled(house, "embedding") as other:
            assert (await other.rpc("listLoaded"))["result"] == []
            await other.load("embed")
            (info,) = (await other.rpc("listLoaded"))["result"]
            assert (info["type"], info["identifier"]) == ("embedding", "embed")
            assert "vision" not in info
            config = fields((await other.rpc("getLoadConfig", {"specifier": named("embed")}))["result"])
            assert config["embedding.load.contextLength"] == info["contextLength"]


async def test_the_ways_to_say_which_one(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        (info,) = (await line.rpc("listLoaded"))["result"]
        reference = {"type": "instanceReference", "instanceReference": info["instanceReference"]}
        for query in ({}, {"identifier": "chat"}, {"path": "CHAT"}, {"domain": "llm", "vision": False}):
            told = await line.rpc("getModelInfo", {"specifier": {"type": "query", "query": query}})
            assert told["result"]["identifier"] == "chat"
        told = await line.rpc("getModelInfo", {"specifier": reference, "throwIfNotFound": True})
        assert told["result"]["identifier"] == "chat"
        for query in ({"identifier": "CHAT"}, {"path": "other"}, {"domain": "embedding"}, {"vision": True}):
            error = (await line.rpc("getModelInfo", {"specifier": {"type": "query", "query": query}}))["error"]
            assert error["displayData"]["query"] == query
            assert error["displayData"]["loadedModelsSample"] == ["chat"]
            quiet = {"specifier": {"type": "query", "query": query}, "throwIfNotFound": False}
            answer = await line.rpc("getModelInfo", quiet)
            assert (answer["type"], "result" in answer) == ("rpcResult", False)


async def test_how_it_was_loaded(tmp_path: Path) -> None:
    config = stack(
        llm__load__contextLength=512,
        llm__load__numParallelSessions=2,
        llm__load__llama__flashAttention=True,
        llm__load__llama__acceleration__offloadRatio="off",
        llm__load__llama__kCacheQuantizationType={"checked": True, "value": "q8_0"},
        llm__load__llama__tryMmap=False,
    )
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.stream("loadModel", {"modelKey": "chat", "loadConfigStack": config})
        told = fields((await line.rpc("getLoadConfig", {"specifier": named("chat")}))["result"])
        assert told == {
            "llm.load.contextLength": 512,
            "llm.load.numParallelSessions": 2,
            "llm.load.llama.flashAttention": True,
            "llm.load.llama.acceleration.offloadRatio": "off",
            "llm.load.llama.kCacheQuantizationType": {"checked": True, "value": "q8_0"},
            "llm.load.llama.tryMmap": False,
            "llm.load.llama.keepModelInMemory": False,
        }
        assert (await line.rpc("getBasePredictionConfig", {"specifier": named("chat")}))["result"] == {"fields": []}


async def test_what_it_is_doing(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--parallel", "1")) as house, dialled(house, "llm") as line:
        await line.load("chat")
        asked = {"specifier": named("chat"), "throwIfNotFound": True}
        assert (await line.rpc("getInstanceProcessingState", asked))["result"] == {"status": "idle", "queued": 0}
        channels = [await line.open("predict", asking(LONG)) for _ in range(2)]
        await line.packet(channels[0], "fragment")
        await house.until(lambda: house.leases() == 2)
        assert (await line.rpc("getInstanceProcessingState", asked))["result"] == {"status": "generating", "queued": 1}


async def test_what_it_would_take(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        entry = house.services.catalog.find("chat")
        for context in (256, 4096):
            asked = {"modelKey": "chat", "loadConfigStack": stack(llm__load__contextLength=context)}
            told = (await line.rpc("estimateModelUsage", asked))["result"]
            assert told["passesGuardrails"] is True
            assert told["memory"]["totalBytes"] == entry.memory_needed(context)
            assert told["memory"]["modelBytes"] + told["memory"]["contextBytes"] == entry.memory_needed(context)


async def test_unloading_names_an_instance(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        error = (await line.rpc("unloadModel", {"identifier": "other"}))["error"]
        assert error["displayData"] == {
            "code": "generic.identifierNotFound",
            "identifier": "other",
            "loadedModelsSample": ["chat"],
            "totalLoadedModels": 1,
        }
        answer = await line.rpc("unloadModel", {"identifier": "chat"})
        assert (answer["type"], "result" in answer) == ("rpcResult", False)
        assert (await line.rpc("listLoaded"))["result"] == []
        assert house.services.supervisor.loaded() == []


async def test_models_of_others_are_not_seen(tmp_path: Path) -> None:
    mine = ApiKey.model_validate({"key": "sk-lm-aaaaaaaa:AAAAAAAAAAAAAAAAAAAA", "models": ["chat"]})
    all_of_them = ApiKey.model_validate({"key": "sk-lm-bbbbbbbb:BBBBBBBBBBBBBBBBBBBB"})
    door = Door(rate_limits=NO_LIMITS, api_keys=(mine, all_of_them))
    owner = {"authVersion": 1, "clientIdentifier": "bbbbbbbb", "clientPasskey": "B" * 20}
    guest = {"authVersion": 1, "clientIdentifier": "aaaaaaaa", "clientPasskey": "A" * 20}
    async with (
        open_house(tmp_path, door=door, models={"chat": {}, "other": {}}) as house,
        dialled(house, "llm", owner) as line,
        dialled(house, "llm", guest) as blind,
    ):
        await line.load("chat", "other")
        assert len((await line.rpc("listLoaded"))["result"]) == 2
        assert [one["identifier"] for one in (await blind.rpc("listLoaded"))["result"]] == ["chat"]
        assert "error" in await blind.rpc("unloadModel", {"identifier": "other"})
        _, end = await blind.stream("getOrLoad", {"identifier": "other", "loadConfigStack": stack()})
        assert end["error"]["displayData"]["code"] == "generic.pathNotFound"


async def test_strangers_change_nothing(tmp_path: Path) -> None:
    door = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path, door=door) as house, dialled(house, "llm") as line:
        await line.load("chat")
        assert (await line.rpc("unloadModel", {"identifier": "chat"}))["error"]["errorData"]["code"] == "forbidden"
        assert house.services.supervisor.loaded() == ["chat"]


async def test_speech_and_broken_models_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write_model(tmp_path / "models/good.gguf")
    (tmp_path / "models/broken.gguf").write_bytes(b"GGUF")
    async with open_house(tmp_path, models={}) as house, dialled(house, "llm") as line:
        _, end = await line.stream("getOrLoad", {"identifier": "broken", "loadConfigStack": stack()})
        display = {
            "code": "generic.pathNotFound",
            "path": "broken",
            "availablePathsSample": ["good"],
            "totalModels": 1,
        }
        assert end["error"]["displayData"] == display
