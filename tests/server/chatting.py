"""How tests talk to POST /api/v1/chat: a child says what it is told to, and tools are in memory."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from doors import House

from llamarunner.server.services import Services
from llamarunner.toolbox import Asker, Integration, Outcome, Tool, Toolbox

Json = dict[str, Any]
PATH = "/api/v1/chat"
TIMINGS = {"cache_n": 1, "prompt_n": 2, "predicted_n": 2, "predicted_ms": 10.0, "predicted_per_second": 200.0}
PROVIDER = {"type": "ephemeral_mcp", "server_label": "sums"}
ADD = Tool(
    "add",
    "Adds two numbers",
    {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
    PROVIDER,
)
EPHEMERAL = {"type": "ephemeral_mcp", "server_label": "sums", "server_url": "http://sums.example"}
DEEP = {"architecture": "gpt-oss", "metadata": {"tokenizer.chat_template": "{{ messages }} {{ reasoning_effort }}"}}


def told(**fake: Any) -> str:
    """A message that tells the child how to answer."""
    return json.dumps(fake)


def called(name: str, arguments: str, index: int = 0) -> Json:
    return {"tool_calls": [{"index": index, "id": "x", "function": {"name": name, "arguments": arguments}}]}


async def ask(house: House, status: int = 200, /, **document: Any) -> Json:
    async with house.post(PATH, {"model": "chat", "input": "hello", **document}) as response:
        answer: Json = await response.json()
        assert response.status == status, answer
        return answer


async def events(house: House, /, **document: Any) -> list[Json]:
    """All events of a stream; each one's name is its type, and the end is clean."""
    async with house.post(PATH, {"model": "chat", "input": "hello", "stream": True, **document}) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        text = await response.text()
    found = re.findall(r"event: (.+)\ndata: (.+)\n\n", text)
    documents = [json.loads(data) for _, data in found]
    assert [name for name, _ in found] == [one["type"] for one in documents]
    assert documents[-1]["type"] == "chat.end"
    return documents


def kinds(stream: Sequence[Json]) -> list[str]:
    """The types of events, those in a row that are alike but once."""
    every = [one["type"] for one in stream]
    return [kind for at, kind in enumerate(every) if at == 0 or every[at - 1] != kind]


async def bodies(house: House) -> list[Json]:
    return [line["body"] for line in house.journal("body")]


class Tools:
    """A toolbox of the contract, in memory: `answers` are texts by tool, or an error to raise."""

    def __init__(self, answers: Mapping[str, str | Exception], tools: Sequence[Tool] = (ADD,)) -> None:
        self.tools = tools
        self.calls: list[tuple[str, Json]] = []
        self.opened = 0
        self._answers = answers

    async def call(self, name: str, arguments: Mapping[str, object]) -> Outcome:
        self.calls.append((name, dict(arguments)))
        answer = self._answers[name]
        if isinstance(answer, Exception):
            raise answer
        return Outcome(json.dumps([{"type": "text", "text": answer}]), failed=False)


def give(services: Services, tools: Tools, *, failing: Exception | None = None) -> None:
    """Let requests that name a server of tools have these."""

    class Toolboxes(type(services.toolboxes)):  # type: ignore[misc]
        def check(self, integrations: Sequence[Integration], asker: Asker) -> None:
            pass

        @asynccontextmanager
        async def opened(self, integrations: Sequence[Integration], asker: Asker) -> AsyncIterator[Toolbox]:
            if failing:
                raise failing
            tools.opened += 1
            try:
                yield tools if integrations else Tools({}, [])
            finally:
                tools.opened -= 1

    services.toolboxes = Toolboxes(services.settings.mcp, services.outbound)
