"""What every runtime must do, shown with the real programs on the demo model.

`LLAMA_SERVER` names the native binary (`tests/programs/build_llama_server.py` makes one) and `LLAMA_CPP_PYTHON` a
Python that has llama-cpp-python; without, they are looked for where the product looks. One that is not here is
skipped, but not in CI.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

import aiohttp
import pytest

from llamarunner import app
from llamarunner.catalog import Capability, ModelEntry
from llamarunner.config import ModelSettings, RuntimeSettings, bundled
from llamarunner.fleet.binaries import PYTHON, Binaries, ask
from llamarunner.fleet.child import Child, LoadFailed
from llamarunner.fleet.launch import Task
from llamarunner.fleet.runtimes import Build, describe, environment
from llamarunner.server.client import Client
from tests.conftest import alive, on_ci

MODEL = ModelEntry("demo/chat", bundled("models") / "demo-chat.gguf", architecture="llama", context_length=2048)
QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
GRACE_SECONDS = 5.0
LLAMA_CPP = ("llama-server", "xllamacpp")


def find(kind: str) -> Build:
    """The build under test; skips the test if it is not here, and fails it in CI."""
    named = {"llama-server": "LLAMA_SERVER", "llama-cpp-python": "LLAMA_CPP_PYTHON"}.get(kind, "")
    other = os.environ.get(named)
    if other and kind == "llama-cpp-python":
        return ask(kind, (other, *PYTHON[1:], "llama_cpp.server"), environment(os.environ))
    machine = Binaries(RuntimeSettings(binary=Path(other) if other else None), os.environ)
    if kind in machine.kinds:
        return machine.build(kind)
    if on_ci():
        pytest.fail(f"{kind} is not installed ({named} may name it)")
    pytest.skip(f"{kind} is not installed")


class Server:
    """A child that is ready, and how to talk to it."""

    def __init__(self, child: Child, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self.child = child
        self._session = session
        self._url = url
        self._key = key

    async def call(self, path: str, body: dict[str, Any] | None = None, key: str | None = None) -> tuple[int, Any]:
        """Return the status and the body: JSON if it is, else text."""
        headers = {"Authorization": f"Bearer {key or self._key}"}
        method = "GET" if body is None else "POST"
        async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(text) if is_json else text


@contextlib.asynccontextmanager
async def running(
    kind: str, task: Task = Task.GENERATE, model: ModelEntry = MODEL, **settings: Any
) -> AsyncIterator[Server]:
    launch = describe(model, ModelSettings.model_validate(settings), task, "the-key", find(kind))
    async with Client() as client, await Child.spawn(launch, GRACE_SECONDS) as child:
        endpoint = await child.ready(app.prober(client), 30, 60)
        connector = aiohttp.TCPConnector(force_close=True)  # a kept connection may be lost to the child's time-out
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Server(child, session, endpoint.url, endpoint.api_key)


def embedding_model(path: Path) -> ModelEntry:
    """Write the demo model with a pooling type in its header, and a filler that keeps its tensors aligned."""
    pooling = pack("<Q18sII", 18, b"qwen3.pooling_type", 4, 3)  # a 32-bit integer: the last token
    filler = pack("<Q6sIQ4s", 6, b"filler", 8, 4, b"....")  # a string
    assert len(pooling + filler) % 32 == 0
    data = MODEL.path.read_bytes()
    (keys,) = unpack_from("<Q", data, 16)
    path.write_bytes(data[:16] + pack("<Q", keys + 2) + pooling + filler + data[24:])
    return replace(MODEL, id="embedder", path=path, capabilities=frozenset({Capability.EMBEDDING}))


every_runtime = pytest.mark.parametrize("kind", [*LLAMA_CPP, "llama-cpp-python"])
llama_cpp_only = pytest.mark.parametrize("kind", LLAMA_CPP)


@every_runtime
async def test_answers_a_chat_under_the_alias(kind: str) -> None:
    async with running(kind) as server:
        status, answer = await server.call("/v1/chat/completions", QUESTION | {"model": MODEL.id})
        assert (status, answer["model"], answer["object"]) == (200, MODEL.id, "chat.completion")
        assert "Paris" in answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens"] > 0
        status, models = await server.call("/v1/models")
        assert [model["id"] for model in models["data"]] == [MODEL.id]


@every_runtime
async def test_streams_a_chat_to_its_end(kind: str) -> None:
    async with running(kind) as server:
        status, stream = await server.call("/v1/chat/completions", QUESTION | {"stream": True})
        events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
        chunks = [json.loads(event) for event in events[:-1]]
        assert (status, events[-1]) == (200, "[DONE]")
        assert len(chunks) > 5
        assert "Paris" in "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


@every_runtime
async def test_completes_a_text(kind: str) -> None:
    async with running(kind) as server:
        body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
        status, answer = await server.call("/v1/completions", body)
        assert (status, answer["object"]) == (200, "text_completion")
        assert "Paris" in answer["choices"][0]["text"]


@every_runtime
async def test_refuses_who_does_not_know_the_key(kind: str) -> None:
    async with running(kind) as server:
        assert (await server.call("/v1/chat/completions", QUESTION, key="wrong"))[0] == 401


@every_runtime
async def test_ends_within_the_grace_and_leaves_nothing(kind: str) -> None:
    """Asked once before: llama-server is deaf to SIGTERM between saying that it is ready and its first turn."""
    async with running(kind) as server:
        status, _ = await server.call("/v1/completions", {"prompt": "hello", "max_tokens": 1, "model": MODEL.id})
        assert status == 200
        started = time.monotonic()
        await server.child.stop()
        assert time.monotonic() - started < GRACE_SECONDS
        assert not alive(server.child.pid)


@every_runtime
async def test_a_broken_file_ends_it_with_a_cause(kind: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(MODEL.path.read_bytes()[:5000])
    launch = describe(ModelEntry("broken", broken), ModelSettings(), Task.GENERATE, "the-key", find(kind))
    async with Client() as client, await Child.spawn(launch, GRACE_SECONDS) as child:
        with pytest.raises(LoadFailed, match="exit code 1"):
            await child.ready(app.prober(client), 30, 60)


@every_runtime
async def test_embeds_with_an_embedding_model(kind: str, tmp_path: Path) -> None:
    model = embedding_model(tmp_path / "embedder.gguf")
    async with running(kind, Task.EMBED, model) as server:
        status, answer = await server.call("/v1/embeddings", {"input": ["hello", "the capital"], "model": model.id})
        assert (status, answer["model"]) == (200, model.id)
        first, second = (item["embedding"] for item in answer["data"])
        assert len(first) == len(second) == 160
        assert first != second


@llama_cpp_only
async def test_embeds_with_a_chat_model_also_more_than_a_batch(kind: str) -> None:
    async with running(kind, Task.EMBED) as server:
        status, answer = await server.call("/v1/embeddings", {"input": ["hello", "world " * 300]})
        assert status == 200
        assert answer["usage"]["prompt_tokens"] > 512
        assert [len(item["embedding"]) for item in answer["data"]] == [160, 160]


@llama_cpp_only
async def test_ranks_documents(kind: str) -> None:
    async with running(kind, Task.RERANK) as server:
        status, answer = await server.call("/v1/rerank", {"query": "a", "documents": ["b", "c", "d"]})
        assert status == 200
        assert {result["index"] for result in answer["results"]} == {0, 1, 2}


@llama_cpp_only
async def test_tells_thoughts_and_tool_calls_from_the_answer(kind: str) -> None:
    async with running(kind) as server:
        question = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [TOOL]}
        _, answer = await server.call("/v1/chat/completions", question | {"temperature": 0})
        message = answer["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["name"] == "get_weather"
        assert message["reasoning_content"]
        assert "<think>" not in message["content"]


@llama_cpp_only
async def test_one_request_may_use_the_whole_context_and_four_share_it(kind: str) -> None:
    async with running(kind) as server:
        _, props = await server.call("/props")
        assert props["default_generation_settings"]["n_ctx"] == 2048
        assert props["total_slots"] == 4


@llama_cpp_only
async def test_speaks_the_other_dialects(kind: str) -> None:
    async with running(kind) as server:
        bodies: dict[str, dict[str, Any]] = {
            "/v1/messages": QUESTION | {"max_tokens": 5},
            "/v1/messages/count_tokens": QUESTION,
            "/v1/responses": {"input": "hello"},
            "/apply-template": QUESTION,
            "/tokenize": {"content": "hello"},
        }
        assert {path: (await server.call(path, body))[0] for path, body in bodies.items()} == dict.fromkeys(bodies, 200)
        assert (await server.call("/metrics"))[0] == 200


@llama_cpp_only
async def test_a_draft_model_drafts(kind: str) -> None:
    async with running(kind, model_draft=str(MODEL.path)) as server:
        _, answer = await server.call("/v1/chat/completions", QUESTION)
        assert answer["timings"]["draft_n_accepted"] > 0


async def test_what_llama_cpp_python_lacks() -> None:
    """If this fails because it can do more by now, the table in `fleet.runtimes` has to follow."""
    async with running("llama-cpp-python") as server:
        for path in ("/health", "/props", "/metrics"):
            assert (await server.call(path))[0] == 404
        for path in ("/v1/messages", "/v1/responses", "/tokenize", "/v1/rerank", "/infill"):
            assert (await server.call(path, {}))[0] == 404
        question = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [TOOL]}
        _, answer = await server.call("/v1/chat/completions", question | {"temperature": 0, "max_tokens": 60})
        message = answer["choices"][0]["message"]
        assert "<tool_call>" in message["content"]
        assert not {"tool_calls", "reasoning_content"} & message.keys()
