"""LM Studio's chats and kept responses in the whole program, with the real runtime and the demo models."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.conftest import PROGRAMS
from tests.house.conftest import House, OpenHouse
from tests.house.test_spec_examples import run
from tests.specification import differences, document, text

Json = dict[str, Any]
PATH = "/api/v1/chat"
ADDRESS = "http://localhost:1234"
NAMES = {"ibm/granite-4-micro": "demo-chat", "qwen/qwen3-vl-4b": "demo-vision"}
COLD = {"model": "demo-chat", "temperature": 0}
FRANCE, ITALY = "What is the capital of France?", "And of Italy?"
PARIS, ROME = "The capital of France is Paris.", "The capital of Italy is Rome."


async def ask(house: House, path: str = PATH, /, **asked: Any) -> Json:
    async with aiohttp.ClientSession() as http, http.post(house.url + path, json={**COLD, **asked}) as response:
        answer: Json = await response.json()
        assert response.status == 200, answer
        return answer


def said(answer: Json) -> str:
    return str(answer["output"][-1]["content"])


def program(name: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / name)]


@contextmanager
def servers(folder: Path) -> Iterator[Json]:
    """Settings under which requests may use MCP servers of this machine, one of them as a plugin of two names."""
    command, *arguments = program("mcp_documented.py")
    entry = {"command": command, "args": [*arguments, "stdio"]}
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"playwright": entry, "sums": entry}}))
    yield {"mcp": {"allow_ephemeral": True, "allow_private_addresses": True, "servers_file": str(file)}}


@pytest.fixture
async def hosted() -> AsyncIterator[str]:
    """An MCP server over HTTP; its URL."""
    process = await asyncio.create_subprocess_exec(
        *program("mcp_documented.py"), "http", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    async with asyncio.timeout(30):
        port = int(await process.stdout.readline())
    yield f"http://127.0.0.1:{port}/mcp"
    process.terminate()
    await process.wait()


# ── the document's examples ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_examples_of_the_document(open_house: OpenHouse, tmp_path: Path, hosted: str) -> None:
    with servers(tmp_path) as settings:
        async with open_house({"catalog": {"aliases": NAMES}, **settings}) as house:
            answers = {}
            for name in ("chat_mcp", "chat_image"):
                example = text(f"lmstudio/{name}.sh")
                assert ADDRESS in example
                example = example.replace(ADDRESS, house.url).replace("https://huggingface.co/mcp", hosted)
                (tmp_path / f"{name}.sh").write_text(example)
                answers[name] = json.loads(await run("sh", str(tmp_path / f"{name}.sh"), folder=tmp_path))
    for name, answer in answers.items():
        documented = document(f"lmstudio/answers/{name}.json")
        assert differences({**documented, "output": None}, answer) == []
        assert re.fullmatch(r"resp_[0-9a-f]{48}", answer["response_id"])
        assert {item["type"] for item in answer["output"]} <= {"message", "reasoning", "tool_call", "invalid_tool_call"}
    assert answers["chat_image"]["model_instance_id"] == "demo-vision"
    assert "red" in said(answers["chat_image"]).casefold()


async def test_the_model_calls_tools_of_real_servers(open_house: OpenHouse, tmp_path: Path, hosted: str) -> None:
    ephemeral = {"type": "ephemeral_mcp", "server_label": "sums", "server_url": hosted, "allowed_tools": ["add"]}
    plugin = {"type": "plugin", "id": "mcp/sums", "allowed_tools": ["add"]}
    with servers(tmp_path) as settings:
        async with open_house(settings) as house:
            for integration in (ephemeral, plugin):
                answer = await ask(house, input="What is 40 plus 2?", integrations=[integration])
                (call,) = [item for item in answer["output"] if item["type"] == "tool_call"]
                own = {"type": "ephemeral_mcp", "server_label": "sums"}
                assert call == {
                    "type": "tool_call",
                    "tool": "add",
                    "arguments": {"a": 40, "b": 2},
                    "output": '[{"type":"text","text":"42"}]',
                    "provider_info": own if integration is ephemeral else {"type": "plugin", "plugin_id": "mcp/sums"},
                }
                assert "42" in said(answer)


# ── what is kept ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
async def test_a_chat_goes_on_after_a_restart_and_branches(open_house: OpenHouse, hard: bool) -> None:
    async with open_house() as house:
        first = await ask(house, input=FRANCE)
        kept = await ask(house, "/v1/responses", input=FRANCE)
        assert said(first) == PARIS
        async with aiohttp.ClientSession() as http:  # and one is under way when it ends
            document = {**COLD, "input": "x " * 300, "stream": True, "previous_response_id": first["response_id"]}
            async with http.post(house.url + PATH, json=document) as response:
                await response.content.readline()
                if hard:
                    house.process.kill()
                else:
                    house.process.terminate()
                    await response.read()
                await asyncio.wait_for(house.process.wait(), 20)
    async with open_house() as house:
        for _ in range(2):
            branch = await ask(house, input=ITALY, previous_response_id=first["response_id"])
            assert said(branch) == ROME
        other = await ask(house, input="What is 2+2?", previous_response_id=first["response_id"])
        assert "4" in said(other)
        later = await ask(house, "/v1/responses", input=ITALY, previous_response_id=kept["id"])
        assert later["output"][-1]["content"][0]["text"] == ROME


async def test_openais_client(open_house: OpenHouse) -> None:
    async with (
        open_house() as house,
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client,
    ):
        first = await client.responses.create(model="demo-chat", input=FRANCE, temperature=0)
        assert (first.output_text, first.status, first.model) == (PARIS, "completed", "demo-chat")
        assert first.usage
        assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
        second = await client.responses.create(
            model="demo-chat", input=ITALY, temperature=0, previous_response_id=first.id
        )
        assert (second.output_text, second.previous_response_id) == (ROME, first.id)
        async with client.responses.stream(
            model="demo-chat", input=ITALY, temperature=0, previous_response_id=first.id
        ) as stream:
            texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            third = await stream.get_final_response()
        assert ("".join(texts), third.output_text) == (ROME, ROME)
        again = await client.responses.retrieve(third.id)
        assert again.output_text == ROME
        items = await client.responses.input_items.list(third.id)
        assert [part.text for item in items.data for part in item.content] == [ITALY]  # type: ignore[union-attr]
        await client.responses.delete(third.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(third.id)
        with pytest.raises(openai.BadRequestError, match="not found") as refused:
            await client.responses.create(model="demo-chat", input="x", previous_response_id=third.id)
        assert refused.value.code == "previous_response_not_found"
        unkept = await client.responses.create(model="demo-chat", input="hi", temperature=0, store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(unkept.id)


async def test_openais_client_calls_functions(open_house: OpenHouse) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}
    add: Any = {"type": "function", "name": "add", "description": "Add two numbers.", "parameters": parameters}
    async with (
        open_house() as house,
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client,
    ):
        asked = await client.responses.create(model="demo-chat", input="What is 40 plus 2?", tools=[add], temperature=0)
        (call,) = [item for item in asked.output if item.type == "function_call"]
        assert (call.name, json.loads(call.arguments)) == ("add", {"a": 40, "b": 2})
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
        answer = await client.responses.create(
            model="demo-chat", input=[result], previous_response_id=asked.id, tools=[add], temperature=0
        )
        assert "42" in answer.output_text
        schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        shaped = await client.responses.create(
            model="demo-chat",
            input="Say",
            temperature=0,
            text={"format": {"type": "json_schema", "name": "n", "schema": schema}},
        )
        assert isinstance(json.loads(shaped.output_text)["a"], int)
