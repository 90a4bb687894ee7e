"""Searching and downloading models through LM Studio's sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doors import open_house
from sdk_talking import Json, Line, dialled

from llamarunner.config import NO_LIMITS, Door
from tests.library.places import Hub, model_bytes, served

REPOSITORY = "owner/Tiny-GGUF"


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Hub]:
    server = Hub()
    async with served(server):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.offer(REPOSITORY, {"t-Q4_K_M.gguf": model_bytes(tmp_path, 1), "t-Q8_0.gguf": model_bytes(tmp_path, 2)})
        yield server


async def found(line: Line, **opts: object) -> Json:
    answer: Json = await line.rpc("searchModels", {"opts": opts})
    return answer


@pytest.mark.usefixtures("hub")
async def test_from_a_search_to_a_model(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house, dialled(house, "repository") as line:
        (result,) = (await found(line, searchTerm="tiny", limit=5))["result"]["results"]
        assert result == {"name": REPOSITORY, "identifier": {"type": "hf", "identifier": REPOSITORY}}
        asked = {"modelSearchResultIdentifier": result["identifier"]}
        options = (await line.rpc("getModelDownloadOptions", asked))["result"]["results"]
        first = options[0]
        assert first == {
            "quantization": "Q4_K_M",
            "name": "t-Q4_K_M.gguf",
            "sizeBytes": first["sizeBytes"],
            "fitEstimation": "fitWithoutGPU",
            "recommended": True,
            "downloadIdentifier": f"hf.co/{REPOSITORY}:Q4_K_M",
            "indexedModelIdentifier": REPOSITORY,
            "compatibilityType": "gguf",
        }
        assert [one["quantization"] for one in options] == ["Q4_K_M", "Q8_0"]
        packets, end = await line.stream("downloadModel", {"downloadIdentifier": first["downloadIdentifier"]})
        assert end["type"] == "channelClose"
        assert list(dict.fromkeys(one["type"] for one in packets)) == ["downloadProgress", "startFinalizing", "success"]
        *_, last, _, success = packets
        assert last["update"]["downloadedBytes"] == last["update"]["totalBytes"] == first["sizeBytes"]
        assert house.services.catalog.find(success["defaultIdentifier"]).size == first["sizeBytes"]


@pytest.mark.usefixtures("hub")
async def test_what_fits_exactly_and_what_not_at_all(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house, dialled(house, "repository") as line:
        for term in (REPOSITORY.lower(), f"https://huggingface.co/{REPOSITORY}"):
            (result,) = (await found(line, searchTerm=term))["result"]["results"]
            assert result["exact"] is True
        assert (await found(line, searchTerm="tiny", compatibilityTypes=["safetensors"]))["result"]["results"] == []
        assert (await found(line, searchTerm="huge"))["result"]["results"] == []
        assert (await found(line, limit=26))["error"]["errorData"]["param"] == "opts.limit"


async def test_what_is_not_there_is_told(tmp_path: Path, hub: Hub) -> None:
    async with open_house(tmp_path, models={}) as house, dialled(house, "repository") as line:
        for identifier, said in (("owner/none", "does not exist"), ("none", "repository of Hugging Face")):
            asked = {"modelSearchResultIdentifier": {"type": "hf", "identifier": identifier}}
            assert said in (await line.rpc("getModelDownloadOptions", asked))["error"]["title"]
        _, end = await line.stream("downloadModel", {"downloadIdentifier": "hf.co/owner/none"})
        assert (end["type"], "does not exist" in end["error"]["title"]) == ("channelError", True)
        assert hub.asked


async def test_a_download_can_be_cancelled(tmp_path: Path, hub: Hub) -> None:
    hub.moods = ["hang"]
    async with open_house(tmp_path, models={}) as house, dialled(house, "repository") as line:
        channel = await line.open("downloadModel", {"downloadIdentifier": f"hf.co/{REPOSITORY}"})
        await line.packet(channel, "downloadProgress")
        await line.stop(channel)
        packets, end = await line.until_end(channel)
        assert (end["type"], [one for one in packets if one["type"] == "success"]) == ("channelClose", [])


async def test_it_is_for_those_who_manage(tmp_path: Path, hub: Hub) -> None:
    door = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path, models={}, door=door) as house, dialled(house, "repository") as line:
        asked = {"modelSearchResultIdentifier": {"type": "hf", "identifier": REPOSITORY}}
        errors = [(await found(line))["error"], (await line.rpc("getModelDownloadOptions", asked))["error"]]
        errors.append((await line.stream("downloadModel", {"downloadIdentifier": REPOSITORY}))[1]["error"])
        assert [one["errorData"]["code"] for one in errors] == ["forbidden"] * 3
        assert not hub.asked
