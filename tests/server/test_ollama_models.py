"""What is told of models in Ollama's language."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doors import House, open_house

from llamarunner.server.ollama_models import VERSION
from tests.programs.write_gguf import write_model, write_projector
from tests.server.test_ollama_api import BERT, CHAT, FIM, THINKER, Json, ask, said


async def get(house: House, path: str) -> Any:
    async with house.client.get(house.urls["ollama"] + path) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return await response.json()


async def test_the_list_has_the_newest_first(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"a": THINKER, "b": BERT, "c": FIM}) as house:
        for age, name in enumerate("bca"):
            os.utime(tmp_path / "models" / f"{name}.gguf", (1e9 - age, 1e9 - age))
        house.services.catalog.scan()
        models = (await get(house, "/api/tags"))["models"]
        async with house.client.head(house.urls["ollama"] + "/api/tags") as response:
            assert response.status == 200
        assert house.journal("start") == []
    assert [one["name"] for one in models] == ["b:latest", "c:latest", "a:latest"]
    for one in models:
        assert one["model"] == one["name"]
        file = tmp_path / "models" / f"{one['name'].removesuffix(':latest')}.gguf"
        assert one["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert one["size"] > 0
    assert datetime.fromisoformat(models[0]["modified_at"]) == datetime.fromtimestamp(1e9, UTC)
    assert models[0]["details"]["family"] == "bert"
    assert models[0]["capabilities"] == ["embedding"]
    assert {"completion", "insert"} <= set(models[1]["capabilities"])
    assert {"completion", "tools", "thinking"} <= set(models[2]["capabilities"])


async def test_a_door_without_models(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        assert await get(house, "/api/tags") == {"models": []}
        assert await get(house, "/api/ps") == {"models": []}
        assert await get(house, "/api/version") == {"version": VERSION}
        assert (await get(house, "/api/status"))["cloud"]["disabled"] is True
        assert await get(house, "/api/experimental/model-recommendations") == {"recommendations": []}


async def test_what_runs_and_until_when(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}, "thinker": THINKER, "embed": BERT}) as house:
        for model, keep_alive in (("chat", "10m"), ("thinker", -1)):
            assert (await ask(house, CHAT, said(model=model, stream=False, keep_alive=keep_alive)))[0] == 200
        last, first = (await get(house, "/api/ps"))["models"]
        assert (last["name"], first["name"]) == ("thinker:latest", "chat:latest")
        left = datetime.fromisoformat(first["expires_at"]) - datetime.now(UTC)
        assert 590 < left.total_seconds() <= 600
        assert datetime.fromisoformat(last["expires_at"]).year > 2300
        assert (first["size"] > 1_000_000, first["size_vram"], first["context_length"]) == (True, 0, 4096)
        await ask(house, CHAT, {"model": "thinker", "keep_alive": 0})
        await house.until(lambda: house.services.supervisor.loaded() == ["chat"])
        assert [one["name"] for one in (await get(house, "/api/ps"))["models"]] == ["chat:latest"]


async def test_a_model_that_runs_is_told_though_the_catalog_hides_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        assert "demo-chat" not in str(await get(house, "/api/tags"))
        await ask(house, CHAT, {"model": "demo-chat"})
        assert [one["name"] for one in (await get(house, "/api/ps"))["models"]] == ["demo-chat:latest"]
        async with house.client.get(house.urls["ollama"] + "/v1/system/status") as answer:
            models = (await answer.json())["models"]
    assert (models["total"], models["loaded"], models["memory_usage"] > 0) == (1, 1, True)


async def test_all_of_a_model(tmp_path: Path) -> None:
    words: Json = {"metadata": {**THINKER["metadata"], "tokenizer.ggml.tokens": list("abcdefg")}}
    async with open_house(tmp_path, models={"a": words, "c": FIM}) as house:
        _, told = await ask(house, "/api/show", {"model": "A"})
        _, verbose = await ask(house, "/api/show", {"name": "a:latest", "verbose": True})
        _, fim = await ask(house, "/api/show", {"name": "c", "system": "brief", "options": {"stop": ["x"], "top_k": 3}})
        headers = {"User-Agent": "GitHubCopilotChat/1.0"}
        async with house.client.post(
            house.urls["ollama"] + "/api/show", json={"model": "A"}, headers=headers
        ) as answer:
            copilot = await answer.json()
    info = told["model_info"]
    architecture = info["general.architecture"]
    assert info[f"{architecture}.context_length"] > 0
    assert info["general.basename"] == "a"
    assert copilot["model_info"]["general.basename"] == "A"
    assert not {"general.name", "tokenizer.chat_template"} & info.keys()
    assert told["template"] == "{{ tools }}<think></think>"
    assert {"tools", "thinking"} <= set(told["capabilities"])
    assert told["tensors"]
    assert set(told["tensors"][0]) == {"name", "type", "shape"}
    assert info["tokenizer.ggml.tokens"] == []
    assert verbose["model_info"]["tokenizer.ggml.tokens"] == list("abcdefg")
    assert ".Suffix" in fim["template"]
    assert fim["parameters"] == 'stop                           "x"\ntop_k                          3'
    assert fim["system"] == "brief"
    assert str(tmp_path) not in str(verbose), "no path of this machine"


async def test_a_projector_is_shown_too(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "eyes" / "eyes.gguf")
    projector = write_projector(tmp_path / "models" / "eyes" / "mmproj-eyes.gguf")
    async with open_house(tmp_path, models={"chat": {}}) as house:
        _, eyes = await ask(house, "/api/show", {"model": "eyes"})
        _, chat = await ask(house, "/api/show", {"model": "chat"})
        projector.write_bytes(b"GGUF")
        status, broken = await ask(house, "/api/show", {"model": "eyes"})
    assert eyes["projector_info"] == {"clip.has_vision_encoder": True, "general.architecture": "clip"}
    assert eyes["model_info"]["general.architecture"] == "llama"
    assert "vision" in eyes["capabilities"]
    assert "projector_info" not in chat
    assert (status, str(tmp_path) in broken["error"]) == (400, False)


async def test_a_model_that_cannot_be_shown(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        (tmp_path / "models" / "chat.gguf").write_bytes(b"GGUF")
        status, answer = await ask(house, "/api/show", {"model": "chat"})
        assert (status, str(tmp_path) in answer["error"]) == (400, False)
