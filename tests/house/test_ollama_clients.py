"""Ollama's official Python client, sync and async, and LangChain's, with the real runtime and the demo models."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import pytest
from langchain_core.messages import HumanMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings

from tests.house.conftest import House, OpenHouse
from tests.library.places import Registry, model_bytes, served

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
RED = base64.b64decode(  # 10×10 pixels
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)
COLD = {"temperature": 0, "seed": 1}


def get_weather(city: str) -> str:
    """Get the weather of a city

    Args:
        city: The city
    """
    return f"sunny in {city}"


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry that has `mario`."""
    server = Registry()
    async with served(server):
        server.offer("library/mario", ("model", model_bytes(tmp_path)))
        yield server


@pytest.fixture
async def house(open_house: OpenHouse, registry: Registry, tmp_path: Path) -> AsyncIterator[House]:
    catalog = {"registry": registry.url, "library": str(tmp_path / "library"), "demo_models": "show"}
    async with open_house({"catalog": catalog}) as house:
        yield house


@pytest.fixture
async def client(house: House) -> AsyncIterator[ollama.AsyncClient]:
    async with closing(ollama.AsyncClient(house.urls["Ollama"])) as client:
        yield client


@asynccontextmanager
async def closing(client: ollama.AsyncClient) -> AsyncIterator[ollama.AsyncClient]:
    try:
        yield client
    finally:
        await client._client.aclose()


async def test_every_method_of_the_asynchronous_client(client: ollama.AsyncClient) -> None:
    whole = await client.chat("demo-chat", QUESTION, options=COLD)
    assert (whole.message.content, whole.done, whole.done_reason) == (ANSWER, True, "stop")
    assert "France" in (whole.message.thinking or "")
    assert whole.model == "demo-chat"
    for figure in (whole.total_duration, whole.load_duration, whole.prompt_eval_count, whole.eval_count):
        assert figure
        assert figure > 0
    parts = [part async for part in await client.chat("demo-chat:latest", QUESTION, stream=True, options=COLD)]
    assert "".join(part.message.content or "" for part in parts) == ANSWER
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    plain = await client.chat("demo-chat", QUESTION, think=False, options=COLD)
    assert (plain.message.content, plain.message.thinking) == (ANSWER, None)

    prompt = await client.generate("demo-chat", QUESTION[0]["content"], options=COLD, logprobs=True, top_logprobs=2)
    assert prompt.response == ANSWER
    assert prompt.logprobs
    assert len(prompt.logprobs[0].top_logprobs or ()) == 2
    assert prompt.context
    again = await client.generate("demo-chat", "And of Spain?", context=prompt.context, options=COLD)
    assert again.context
    assert list(again.context[: len(prompt.context)]) == list(prompt.context)
    pieces = [part async for part in await client.generate("demo-chat", "Hello", raw=True, stream=True, options=COLD)]
    assert "".join(part.response for part in pieces)
    assert pieces[-1].context is None

    vectors = await client.embed("demo-embed", ["one", "two"], dimensions=8)
    assert [len(one) for one in vectors.embeddings] == [8, 8]
    assert math.hypot(*vectors.embeddings[0]) == pytest.approx(1, abs=1e-6)
    assert len((await client.embeddings("demo-embed", "one")).embedding) == 192
    long = await client.embed("demo-embed", "a long text " * 500)
    assert len(long.embeddings[0]) == 192

    listed = (await client.list()).models
    assert {one.model for one in listed} == {"demo-chat:latest", "demo-embed:latest", "demo-vision:latest"}
    assert all(one.modified_at and one.size and len(one.digest or "") == 64 for one in listed)
    shown = await client.show("demo-chat")
    assert (shown.modelinfo or {})["qwen3.context_length"] == 2048
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities or ())
    running = (await client.ps()).models
    assert {one.model for one in running} == {"demo-chat:latest", "demo-embed:latest"}
    assert all(one.expires_at and one.size and one.context_length for one in running)


MADE: dict[str, Any] = {"from_": "demo-chat", "system": "Be brief.", "parameters": {"temperature": 0}}
ABSENT = [("pull", ("luigi",), 500), ("copy", ("luigi", "a"), 404), ("delete", ("luigi",), 404), ("push", ("a",), 400)]


async def test_every_method_of_the_asynchronous_client_that_changes_what_is_there(
    client: ollama.AsyncClient, tmp_path: Path
) -> None:
    assert (await client.pull("mario")).status == "success"
    told = [line.status async for line in await client.pull("mario", stream=True)]
    assert (told[0], told[-1]) == ("pulling manifest", "success")
    assert (await client.create("yoshi", **MADE)).status == "success"
    assert [line.status async for line in await client.create("yoshi", **MADE, stream=True)][-1] == "success"
    assert (await client.chat("yoshi", QUESTION)).message.content == ANSWER
    path = tmp_path / "own.gguf"
    await asyncio.to_thread(path.write_bytes, model_bytes(tmp_path, seed=1))
    digest = await client.create_blob(path)
    assert (await client.create("own", files={"own.gguf": digest})).status == "success"
    assert (await client.copy("own", "peach")).status == "success"
    made = {"mario:latest", "yoshi:latest", "own:latest", "peach:latest"}
    assert made < {one.model for one in (await client.list()).models}
    for name in made:
        assert (await client.delete(name)).status == "success"
    assert not made & {one.model for one in (await client.list()).models}
    for method, names, status in ABSENT:
        with pytest.raises(ollama.ResponseError) as refused:
            await getattr(client, method)(*names)
        assert refused.value.status_code == status


async def test_tools_and_their_results(client: ollama.AsyncClient) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = await client.chat("demo-chat", messages, tools=[get_weather], options=COLD)
    (call,) = asked.message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "content": '{"temperature": 21, "condition": "sunny"}', "tool_name": "get_weather"}
    told = await client.chat("demo-chat", [*messages, asked.message, result], tools=[get_weather], options=COLD)
    assert "21" in (told.message.content or "")
    parts = [
        one async for one in await client.chat("demo-chat", messages, tools=[get_weather], stream=True, options=COLD)
    ]
    calls = [one for part in parts for one in part.message.tool_calls or ()]
    assert [one.function.arguments for one in calls] == [{"city": "Paris"}]


async def test_structured_output_and_pictures(client: ollama.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    messages = [{"role": "user", "content": "Give me a JSON object with name and age."}]
    answer = await client.chat("demo-chat", messages, format=schema, think=False, options={**COLD, "num_predict": 200})
    assert set(json.loads(answer.message.content or "")) == {"name", "age"}
    thought = await client.chat("demo-chat", messages, format=schema, options={**COLD, "num_predict": 200})
    assert thought.message.thinking, "only what it says is held to the schema"
    assert set(json.loads(thought.message.content or "")) == {"name", "age"}
    picture = {"role": "user", "content": "Describe this image in two sentences", "images": [RED]}
    described = await client.chat("demo-vision", [picture], think=False, options=COLD)
    assert "red" in (described.message.content or "").lower()
    with pytest.raises(ollama.ResponseError) as refused:
        await client.chat("demo-chat", [picture])
    assert refused.value.status_code in (400, 500)


async def test_errors_and_unloading(client: ollama.AsyncClient) -> None:
    for asking, status, text in (
        (client.chat("nope", QUESTION), 404, "model 'nope' not found"),
        (client.generate("nope", "a"), 404, "model 'nope' not found"),
        (client.embed("nope", "a"), 404, 'model "nope" not found, try pulling it first'),
        (client.show("nope"), 404, "model 'nope:latest' not found"),
        (client.chat("demo-embed", QUESTION), 400, '"demo-embed" does not support chat'),
        (client.push("demo-chat"), 400, "pushing models is not supported by this server"),
    ):
        with pytest.raises(ollama.ResponseError) as refused:
            await asking
        assert (refused.value.status_code, refused.value.error) == (status, text)
    with pytest.raises(ollama.ResponseError, match="not found"):
        [part async for part in await client.chat("nope", QUESTION, stream=True)]
    await client.generate("demo-chat", "", keep_alive="5m")
    assert [one.model for one in (await client.ps()).models] == ["demo-chat:latest"]
    assert (await client.generate("demo-chat", "", keep_alive=0)).done_reason == "unload"
    async with asyncio.timeout(10):
        while (await client.ps()).models:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await client.chat("demo-chat", QUESTION, options={**COLD, "num_ctx": 512})
    assert [one.context_length for one in (await client.ps()).models] == [512]


def _synchronously(client: ollama.Client) -> None:
    assert client.chat("demo-chat", QUESTION, options=COLD).message.content == ANSWER
    assert "".join(one.message.content or "" for one in client.chat("demo-chat", QUESTION, stream=True, options=COLD))
    assert client.generate("demo-chat", QUESTION[0]["content"], options=COLD).response == ANSWER
    assert "".join(one.response for one in client.generate("demo-chat", "Hi", stream=True, options=COLD))
    assert len(client.embed("demo-embed", "one").embeddings) == 1
    assert client.embeddings("demo-embed", "one").embedding
    assert client.list().models
    assert client.ps().models
    assert client.show("demo-chat").modelinfo
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.chat("nope", QUESTION)


def _synchronously_changed(client: ollama.Client, folder: Path) -> None:
    assert client.pull("mario").status == "success"
    assert [line.status for line in client.pull("mario", stream=True)][-1] == "success"
    assert client.create("yoshi", **MADE).status == "success"
    assert [line.status for line in client.create("yoshi", **MADE, stream=True)][-1] == "success"
    path = folder / "own.gguf"
    path.write_bytes(model_bytes(folder, seed=1))
    assert client.create("own", files={"own.gguf": client.create_blob(path)}).status == "success"
    assert client.copy("own", "peach").status == "success"
    for name in ("mario", "yoshi", "own", "peach"):
        assert client.delete(name).status == "success"
    for method, names, status in ABSENT:
        with pytest.raises(ollama.ResponseError) as refused:
            getattr(client, method)(*names)
        assert refused.value.status_code == status


async def test_every_method_of_the_synchronous_client(house: House, tmp_path: Path) -> None:
    client = ollama.Client(house.urls["Ollama"])
    try:
        await asyncio.to_thread(_synchronously, client)
        await asyncio.to_thread(_synchronously_changed, client, tmp_path)
    finally:
        client._client.close()


async def test_langchain(house: House) -> None:
    url = house.urls["Ollama"]
    model = ChatOllama(model="demo-chat", base_url=url, temperature=0, validate_model_on_init=True)
    embedder = OllamaEmbeddings(model="demo-embed", base_url=url)
    try:
        await _talk_with_langchain(model, embedder)
    finally:
        for one in (model, embedder):
            await one._async_client._client.aclose()
            one._client._client.close()


async def _talk_with_langchain(model: ChatOllama, embedder: OllamaEmbeddings) -> None:
    answer = await model.ainvoke([HumanMessage(QUESTION[0]["content"])])
    assert ANSWER in answer.content
    assert answer.response_metadata["done_reason"] == "stop"
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] > 0
    assert ANSWER in "".join([str(part.content) async for part in model.astream(QUESTION[0]["content"])])
    called = await model.bind_tools([get_weather]).ainvoke("What is the weather in Paris?")
    assert [(one["name"], one["args"]) for one in called.tool_calls] == [("get_weather", {"city": "Paris"})]
    vectors = await embedder.aembed_documents(["one", "two"])
    assert [len(one) for one in vectors] == [192, 192]
