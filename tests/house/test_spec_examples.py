"""The examples of the LlamaRunner Pro API, run as they stand through both doors; only the address differs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import UNLIMITED_DOORS
from tests.house.conftest import House, OpenHouse
from tests.specification import ADDRESS, ALIASES, differences, document, text

DOORS = pytest.mark.parametrize("door", ["Ollama", "LM Studio"])
CATALOG = {"aliases": {name: model for name, model in ALIASES.items() if model != "demo-whisper"}}


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house({"catalog": CATALOG}) as house:
        yield house


async def run(*command: str, folder: Path) -> str:
    """Run a program to its end and return what it printed; fails with its complaints."""
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(50):
        out, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return out.decode()


def placed(name: str, url: str, folder: Path) -> Path:
    """Write an example into a folder, with the address of a door of ours."""
    example = text(name)
    assert ADDRESS in example
    file = folder / Path(name).name
    file.write_text(example.replace(ADDRESS, url))
    return file


@DOORS
async def test_curl_chat(house: House, door: str, tmp_path: Path) -> None:
    answer = json.loads(await run("sh", str(placed("chat.sh", house.urls[door], tmp_path)), folder=tmp_path))
    assert differences(document("answers/chat.json"), answer) == []
    assert answer["choices"][0]["message"]["content"].strip()


@DOORS
async def test_curl_stream(house: House, door: str, tmp_path: Path) -> None:
    said = await run("sh", str(placed("stream.sh", house.urls[door], tmp_path)), folder=tmp_path)
    assert_stream(said)


@DOORS
async def test_curl_with_a_key(open_house: OpenHouse, door: str, tmp_path: Path) -> None:
    locked = {name: {**settings, "api_keys": ["YOUR_API_KEY"]} for name, settings in UNLIMITED_DOORS.items()}
    async with open_house({"proxies": locked, "catalog": CATALOG}) as house:
        listed = json.loads(await run("sh", str(placed("key.sh", house.urls[door], tmp_path)), folder=tmp_path))
    assert differences(document("answers/models.json"), listed) == []


@DOORS
async def test_openai_sdk(house: House, door: str, tmp_path: Path) -> None:
    example = placed("openai_sdk.py", house.urls[door], tmp_path)
    assert (await run(sys.executable, str(example), folder=tmp_path)).strip()


@DOORS
async def test_langchain(house: House, door: str, tmp_path: Path) -> None:
    """The example prints nothing; its result is shown by who runs it."""
    example = placed("langchain_llm.py", house.urls[door], tmp_path)
    show = f"import runpy; print(runpy.run_path({str(example)!r})['result'])"
    assert (await run(sys.executable, "-c", show, folder=tmp_path)).strip()


@DOORS
@pytest.mark.parametrize("name", ["chat", "embeddings"])
async def test_an_answer_has_all_that_is_documented(house: House, door: str, name: str) -> None:
    path = {"chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}[name]
    answer = await post(house.urls[door] + path, document(f"requests/{name}.json"))
    assert differences(document(f"answers/{name}.json"), json.loads(answer)) == []


@DOORS
async def test_a_stream_is_as_documented_and_so_is_the_header_of_its_request(house: House, door: str) -> None:
    request = document("requests/stream.json")
    assert_stream(await post(house.urls[door] + "/v1/chat/completions", request, "text/event-stream"))


@DOORS
async def test_a_completion_is_answered(house: House, door: str) -> None:
    answer = json.loads(await post(house.urls[door] + "/v1/completions", document("requests/completion.json")))
    assert answer["object"] == "text_completion"
    assert isinstance(answer["choices"][0]["text"], str)


async def post(url: str, body: Any, kind: str = "application/json") -> str:
    headers = {"Content-Type": kind}
    async with aiohttp.ClientSession() as http, http.post(url, data=json.dumps(body), headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.text()


def assert_stream(said: str) -> None:
    """Every chunk has the documented fields, and some bring text; the end is told."""
    (example, *_) = chunks(text("answers/stream.txt").partition("\n\n")[0])
    real = chunks(said)
    (choice,) = example["choices"]
    bare = {**example, "choices": [{**choice, "delta": {}}]}
    assert [one for chunk in real for one in differences(bare, chunk)] == []
    assert any(differences(example, chunk) == [] for chunk in real)
    assert [one["choices"][0]["finish_reason"] for one in real if one["choices"][0]["finish_reason"]] in (
        ["stop"],
        ["length"],
    )
    assert said.rstrip().endswith("data: [DONE]")


def chunks(said: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
