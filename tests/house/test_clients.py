"""The official clients against both doors, with the real runtime and the demo model."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from llamarunner import app
from llamarunner.config import NO_LIMITS, Settings, bundled
from tests.house.conftest import DEMO_MODELS, House, OpenHouse
from tests.programs.write_gguf import write_embedding_model

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "get_weather",
    "description": "Get the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
COLD = {"temperature": 0}
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    """A server whose model answers the same question in the same way each time."""
    async with open_house({"models": {"demo-chat": {"extra_args": ["--temp", "0"]}}}) as house:
        yield house


@pytest.fixture(params=["Ollama", "LM Studio"])
async def client(house: House, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=house.urls[request.param] + "/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(params=["Ollama", "LM Studio"])
async def claude(house: House, request: pytest.FixtureRequest) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=house.urls[request.param], api_key="any", max_retries=0) as client:
        yield client


async def test_openai_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="demo-chat", messages=QUESTION, temperature=0)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "demo-chat"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_openai_stream_with_usage_and_reasoning(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="DEMO-CHAT:latest", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    thought = "".join(
        getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks if chunk.choices
    )
    assert said == "The capital of France is Paris."
    assert "France" in thought
    assert chunks[-1].usage
    assert {chunk.model for chunk in chunks} == {"demo-chat"}


async def test_openai_tool_call_and_its_result(client: openai.AsyncOpenAI) -> None:
    tools: list[Any] = [{"type": "function", "function": WEATHER}]
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = await client.chat.completions.create(model="demo-chat", messages=messages, tools=tools, temperature=0)
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "condition": "sunny"}'}
    messages += [answer.choices[0].message.model_dump(exclude_none=True), result]
    told = await client.chat.completions.create(model="demo-chat", messages=messages, tools=tools, temperature=0)
    assert "21" in (told.choices[0].message.content or "")


async def test_openai_json_schema_is_obeyed(client: openai.AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = await client.chat.completions.create(
        model="demo-chat",
        messages=[{"role": "user", "content": "Give me a JSON object with name and age."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
        max_tokens=200,
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


async def test_a_schema_that_nothing_meets_is_refused_and_harms_nobody(client: openai.AsyncOpenAI) -> None:
    """llama.cpp would count for ever, deaf to all others."""
    schema = {"type": "array", "minItems": 5, "maxItems": 2, "items": {"type": "integer"}}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "none", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="minItems 5 and maxItems 2"):
        await client.chat.completions.create(model="demo-chat", messages=QUESTION, response_format=wanted)
    answer = await client.chat.completions.create(model="demo-chat", messages=QUESTION, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")


async def test_openai_logprobs(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="demo-chat", messages=QUESTION, logprobs=True, top_logprobs=2, max_tokens=5
    )
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.content
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


async def test_openai_completion_streamed_and_whole(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "demo-chat", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    whole = await client.completions.create(**asked)
    stream = await client.completions.create(**asked, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text != ""


async def test_openai_embeddings_of_several_texts(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="demo-chat", input=["one sentence", "another"])
    vectors = [item.embedding for item in answer.data]
    assert [item.index for item in answer.data] == [0, 1]
    assert len(vectors[0]) == len(vectors[1]) > 100
    assert vectors[0] != vectors[1]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=1e-3)


async def test_openai_responses_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(model="demo-chat", input="What is the capital of France?", temperature=0)
    assert whole.output_text == "The capital of France is Paris."
    stream = await client.responses.create(model="demo-chat", input="What is 2+2?", temperature=0, stream=True)
    events = [event async for event in stream]
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


async def test_openai_lists_and_retrieves(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == DEMO_MODELS
    model = await client.models.retrieve("demo-chat")
    assert (model.id, model.object, model.owned_by) == ("demo-chat", "model", "llama-runner")
    assert model.created > 0


async def test_openai_errors(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="no/such-model", messages=QUESTION)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no/such-model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await client.chat.completions.create(model="demo-chat", messages=QUESTION, temperature="hot")  # type: ignore[call-overload]
    assert wrong.value.code == "invalid_request"
    with pytest.raises(openai.BadRequestError) as long:
        await client.chat.completions.create(
            model="demo-chat", messages=[{"role": "user", "content": "word " * 20_000}]
        )
    assert long.value.code == "context_length_exceeded"


async def test_anthropic_message(claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(model="demo-chat", max_tokens=100, messages=QUESTION, extra_body=COLD)
    assert message.content[-1].type == "text"
    assert message.content[-1].text == "The capital of France is Paris."
    assert (message.role, message.stop_reason, message.model) == ("assistant", "end_turn", "demo-chat")


async def test_anthropic_stream(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(model="demo-chat", max_tokens=100, messages=QUESTION, extra_body=COLD) as stream:
        said = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert said == "The capital of France is Paris."
    assert final.usage.output_tokens > 0


async def test_anthropic_tool_use(claude: anthropic.AsyncAnthropic) -> None:
    tool: Any = {"name": "get_weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    message = await claude.messages.create(
        model="demo-chat", max_tokens=200, messages=messages, tools=[tool], extra_body=COLD
    )
    (use,) = [block for block in message.content if block.type == "tool_use"]
    assert (use.name, use.input, message.stop_reason) == ("get_weather", {"city": "Paris"}, "tool_use")


async def test_anthropic_counts_tokens(claude: anthropic.AsyncAnthropic) -> None:
    short = await claude.messages.count_tokens(model="demo-chat", messages=QUESTION)
    long = await claude.messages.count_tokens(model="demo-chat", messages=QUESTION * 3)
    assert 0 < short.input_tokens < long.input_tokens


async def test_anthropic_errors(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await claude.messages.create(model="nothing", max_tokens=10, messages=QUESTION)
    assert unknown.value.body["type"] == "error"  # type: ignore[index]
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


async def test_model_that_only_embeds(open_house: OpenHouse, tmp_path: Path) -> None:
    """A BERT of one's own beside the demo model: listed, embeds, and says that it cannot chat."""
    write_embedding_model(tmp_path / "own" / "tiny-embed.gguf")
    settings = {"catalog": {"folders": [str(tmp_path / "own")], "demo_models": "show"}}
    async with open_house(settings) as house, openai.AsyncOpenAI(base_url=house.url + "/v1", api_key="any") as client:
        assert [model.id async for model in client.models.list()] == [*DEMO_MODELS, "tiny-embed"]
        same = await client.embeddings.create(model="tiny-embed", input=["the cat", "the cat", "a dog"])
        first, second, other = (item.embedding for item in same.data)
        assert first == pytest.approx(second, abs=1e-4) != other
        with pytest.raises(openai.BadRequestError, match="cannot generate text") as wrong:
            await client.chat.completions.create(model="tiny-embed", messages=QUESTION)
        assert wrong.value.param == "model"


async def test_clients_that_leave_stop_the_model() -> None:
    """Endless answers whose readers go; left alone, llama.cpp would fill eight contexts, which takes it seconds."""
    nowhere = dict.fromkeys(("ollama", "lmstudio", "huggingface", "llama_cpp"), False)
    proxies = {"ollama": {"enabled": False}, "lmstudio": {"port": 0, "rate_limits": NO_LIMITS}}
    settings = Settings.model_validate({"proxies": proxies, "catalog": {"discover": nowhere}})
    endless = {"model": "demo-chat", "messages": QUESTION, "stream": True, "ignore_eos": True, "max_tokens": -1}
    async with app.running(settings) as running, aiohttp.ClientSession() as http:
        for _ in range(8):
            async with http.post(f"{running.urls['lmstudio']}/v1/chat/completions", json=endless) as response:
                assert await response.content.readany()
                response.close()
        supervisor, entry = running.services.supervisor, running.services.catalog.find("demo-chat")
        instance, unit = supervisor.instance(entry), supervisor.unit(entry)
        assert instance
        assert instance.endpoint
        headers = {"Authorization": f"Bearer {instance.endpoint.api_key}"}
        busy = True
        async with asyncio.timeout(2):
            while busy:
                async with http.get(f"{instance.endpoint.url}/slots", headers=headers) as response:
                    busy = any(slot["is_processing"] for slot in await response.json())
        assert unit
        assert not unit.leases


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", {"max_tokens": 5}),
    ("/v1/messages", {"max_tokens": 5, "messages": "x"}),
    ("/v1/messages/count_tokens", {}),
    ("/v1/chat/completions", {"messages": [{"content": "Hi"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
    ("/v1/chat/completions", {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}),
    ("/v1/chat/completions", {"messages": QUESTION, "tools": 7}),
    ("/v1/chat/completions", {"messages": QUESTION, "tools": ["x"]}),
    ("/v1/chat/completions", {"messages": QUESTION, "reasoning_format": "x"}),
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": "hot"}),
    ("/v1/chat/completions", {"messages": QUESTION, "grammar": "root ::= " + "(" * 100_000}),
    ("/v1/chat/completions", {"messages": QUESTION, "response_format": {"type": "odd"}}),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
            ]
        },
    ),
    ("/v1/completions", {}),
    ("/v1/embeddings", {}),
    ("/v1/responses", {}),
    ("/detokenize", {"tokens": [-1]}),
    ("/detokenize", {"tokens": [1_000_000_000]}),
    ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}),
]


async def test_mistakes_of_the_client_are_called_so_and_hurt_nobody(house: House) -> None:
    """What llama.cpp calls a failure of the server in many cases; clients repeat those. No word of its innards."""
    statuses = {}
    async with aiohttp.ClientSession() as http:
        for path, document in MISTAKES:
            async with http.post(house.url + path, json={"model": "demo-chat", **document}) as response:
                body = await response.text()
                statuses[path, str(document)[:60]] = response.status
                assert "vector" not in body
                assert str(bundled("models")) not in body
                assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert set(statuses.values()) == {400}, statuses
    assert house.log().count("is ready on port") <= 2


async def test_readme_examples_run_as_they_stand(house: House) -> None:
    """Only the port differs."""
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(examples) == 3
    said = []
    for example in examples:
        code = example.replace("http://127.0.0.1:1234", house.url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)  # noqa: ASYNC221
        said.append(done.stdout.strip())
    assert "Paris" in said[0]
    assert "4" in said[1]
    near, far = json.loads(said[2])
    assert near > far + 0.2
