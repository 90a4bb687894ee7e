"""Asks what was kept out of training, through a door, at temperature 0; half of it with thinking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import aiohttp
import jsonschema

from ..recipe import Score, right, stage
from ..serving import serving
from . import corpus, tools
from .exchanges import Exchange, as_json, ask, capital, total
from .words import held_out

SEED = 20261121
AT_ONCE = 4
SHOWN = 25  # wrong answers
JSON = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """The model's message to a request, and a way to ask again."""

    send: Callable[[JSON], Awaitable[JSON]]

    async def __call__(self, messages: list[JSON], think: bool, **more: Any) -> JSON:
        body = {"model": "demo", "messages": messages, "temperature": 0, "max_tokens": 200, **more}
        return await self.send(body | {"chat_template_kwargs": {"enable_thinking": think}})


@dataclass(slots=True)
class Sheet:
    """Right and wrong by row; what was wrong is kept to be shown."""

    rows: dict[str, list[bool]]
    wrong: list[str]

    def note(self, row: str, ok: bool, wrong: object) -> None:
        self.rows.setdefault(row, []).append(ok)
        if not ok:
            self.wrong.append(f"{row}: {wrong}")


def evaluate(path: Path) -> list[Score]:
    """Ask more than a thousand questions; takes half a minute on two cores."""
    return asyncio.run(ask_all(path))


async def ask_all(path: Path, every: int = 1) -> list[Score]:
    """Ask one in `every` questions, in the same order each time."""
    sheet = Sheet({}, [])
    slots = {"parallel": AT_ONCE, "ctx_size": 2048 * AT_ONCE}
    async with serving(path, **slots) as url, aiohttp.ClientSession() as http:

        async def send(body: JSON) -> JSON:
            async with http.post(f"{url}/v1/chat/completions", json=body | {"model": path.stem}) as response:
                response.raise_for_status()
                message: JSON = (await response.json())["choices"][0]["message"]
                return message

        chores = [chore(Asked(send), sheet) for chore in islice(_chores(), 0, None, every)]
        gate = asyncio.Semaphore(AT_ONCE)
        with stage("Asking", len(chores)) as step:

            async def turn(chore: Awaitable[None]) -> None:
                async with gate:
                    await chore
                step("")

            await asyncio.gather(*map(turn, chores))
    for line in sheet.wrong[:SHOWN]:
        print(f"  wrong: {line}")
    sheet.rows[ANSWERS] = [ok for kind in KINDS for ok in sheet.rows.get(kind, ())]
    return [right(row, answers, mark) for row, mark in MARKS.items() if (answers := sheet.rows.get(row))]


ANSWERS = "right answers, all kinds"
KINDS = (  # of right answers
    "capitals",
    "sums",
    "other questions",
    "JSON objects",
    "told names and colours remembered",
    "use of a tool's result",
    "tools left alone",
)
MARKS: dict[str, float | None] = {
    ANSWERS: 95,
    "tool and exact arguments": 95,
    "the same, tool names never seen": 95,
    "JSON valid under a schema": 100,
    **dict.fromkeys(KINDS, 95),
    "JSON right under a schema": None,
    "plain answers in a forced schema": None,
    "remembered over 20 exchanges": None,
    "two calls at once": None,
    "does not know, and says so": None,
}
_ROWS = {"capital": "capitals", "sum": "sums", "other": "other questions", "json": "JSON objects"}
Chore = Callable[[Asked, Sheet], Awaitable[None]]


def _chores() -> Iterator[Chore]:
    """All questions. Each is asked once, in one of the two modes."""
    rng = Random(SEED)
    for place, exchange in enumerate(
        _exchanges(rng, {"capital": 110, "sum": 200, "other": 220, "beyond": 80, "json": 100})
    ):
        yield _plain(exchange, place % 2 == 1)
    for place in range(80):
        yield _under_schema(_unseen(rng, as_json), place % 2 == 1)
    for place in range(40):
        yield _forced(_unseen(rng, total if place % 3 else capital), place % 2 == 1)
    for place in range(100):
        yield _memory(rng, place % 2 == 1, 20 if place < 20 else rng.randrange(3))
    for place in range(240):
        yield _tool(rng, place % 2 == 1, unseen=place % 4 > 1)
    for place in range(30):
        yield _two_calls(rng, place % 2 == 1)
    for place, exchange in enumerate(_exchanges(rng, {"capital": 20, "sum": 20, "other": 60})):
        offered = corpus.idle_tools(rng, exchange, unseen=True)
        yield _left_alone(exchange, offered, place % 2 == 1)


def _exchanges(rng: Random, wanted: dict[str, int]) -> Iterator[Exchange]:
    """So many of each kind, no question twice."""
    left, seen = dict(wanted), set[str]()
    while any(left.values()):
        exchange = ask(rng, unseen=True)
        kind = "beyond" if exchange.kind == "powerless" else exchange.kind
        if exchange.question not in seen and left.get(kind):
            left[kind] -= 1
            seen.add(exchange.question)
            yield exchange


def _unseen(rng: Random, maker: Callable[[Random, bool], T]) -> T:
    return next(made for made in iter(lambda: maker(rng, True), None) if held_out(made.question))  # type: ignore[attr-defined]


def _said(message: JSON) -> str:
    return (message.get("content") or "").strip()


def _good(exchange: Exchange, said: str) -> bool:
    return said in (exchange.answer, *exchange.any_of)


def _plain(exchange: Exchange, think: bool) -> Chore:
    async def chore(asked: Asked, sheet: Sheet) -> None:
        said = _said(await asked([corpus.user(exchange.question)], think))
        row = _ROWS.get(exchange.kind, "does not know, and says so")
        sheet.note(row, _good(exchange, said), (exchange.question, exchange.answer, said))

    return chore


_TYPES = {str: "string", bool: "boolean", int: "integer", list: "array"}


def _schema(made: JSON) -> JSON:
    """The schema that a client would send for such an object."""
    properties: JSON = {key: {"type": _TYPES[type(value)]} for key, value in made.items()}
    for entry in properties.values():
        if entry["type"] == "array":
            entry["items"] = {"type": "string"}
    return {"type": "object", "properties": properties, "required": list(made), "additionalProperties": False}


def _format(schema: JSON) -> JSON:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _valid(said: str, schema: JSON) -> bool:
    try:
        jsonschema.validate(json.loads(said), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _under_schema(exchange: Exchange, think: bool) -> Chore:
    wanted = json.loads(exchange.answer)
    schema = _schema(wanted)

    async def chore(asked: Asked, sheet: Sheet) -> None:
        said = _said(await asked([corpus.user(exchange.question)], think, response_format=_format(schema)))
        valid = _valid(said, schema)
        sheet.note("JSON valid under a schema", valid, (exchange.question, said))
        sheet.note("JSON right under a schema", valid and json.loads(said) == wanted, (exchange.question, said))

    return chore


def _forced(exchange: Exchange, think: bool) -> Chore:
    schema = _schema({"answer": ""})

    async def chore(asked: Asked, sheet: Sheet) -> None:
        said = _said(await asked([corpus.user(exchange.question)], think, response_format=_format(schema)))
        valid = _valid(said, schema)
        sheet.note("JSON valid under a schema", valid, (exchange.question, said))
        ok = valid and _good(exchange, json.loads(said)["answer"])
        sheet.note("plain answers in a forced schema", ok, (exchange.question, said))

    return chore


def _memory(rng: Random, think: bool, between: int) -> Chore:
    said, reply, questions = corpus.memory(rng, unseen=True)
    messages = [corpus.user(said), {"role": "assistant", "content": reply}]
    for exchange in islice(iter(lambda: ask(rng, unseen=True), None), between):
        messages += [corpus.user(exchange.question), {"role": "assistant", "content": exchange.answer}]
    question, answer = rng.choice(questions)
    messages.append(corpus.user(question))

    async def chore(asked: Asked, sheet: Sheet) -> None:
        told = _said(await asked(messages, think))
        row = "told names and colours remembered" if between < 10 else "remembered over 20 exchanges"
        sheet.note(row, told == answer, (messages[0]["content"], question, told))

    return chore


def _call_unseen(rng: Random, unseen_names: bool) -> tools.Call:
    """A call whose question was never trained; and, if asked for, neither were the names of the tool."""
    while True:
        call = rng.choice(tools.KINDS)(rng, unseen_names)
        if held_out(call.question):
            return call


def _calls_of(message: JSON) -> list[tuple[str, object]]:
    found = []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        found.append((function["name"], json.loads(function["arguments"])))
    return found


def _tool(rng: Random, think: bool, unseen: bool) -> Chore:
    call = _call_unseen(rng, unseen)
    offered = corpus.offer(rng, {call.intent: call.tool}, rng.choice([0, 1, 2]), unseen)
    row = "the same, tool names never seen" if unseen else "tool and exact arguments"

    async def chore(asked: Asked, sheet: Sheet) -> None:
        question = corpus.user(call.question)
        message = await asked([question], think, tools=offered)
        ok = _calls_of(message) == [(call.name, call.arguments)]
        sheet.note(row, ok, (call.question, call.called, _calls_of(message), _said(message)))
        if ok:
            result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": call.result}
            said = _said(await asked([question, message, result], think, tools=offered))
            sheet.note("use of a tool's result", said == call.answer, (call.question, call.result, said))

    return chore


def _two_calls(rng: Random, think: bool) -> Chore:
    call = _call_unseen(rng, False)
    while not call.city:
        call = _call_unseen(rng, False)
    twin = corpus.twin(rng, call)

    async def chore(asked: Asked, sheet: Sheet) -> None:
        question = [corpus.user(twin.question)]
        message = await asked(question, think, tools=[call.tool], parallel_tool_calls=True)
        ok = _calls_of(message) == [(made.name, made.arguments) for made in (call, twin)]
        sheet.note("two calls at once", ok, (twin.question, _calls_of(message)))

    return chore


def _left_alone(exchange: Exchange, offered: list[JSON], think: bool) -> Chore:
    async def chore(asked: Asked, sheet: Sheet) -> None:
        message = await asked([corpus.user(exchange.question)], think, tools=offered)
        ok = not _calls_of(message) and _good(exchange, _said(message))
        sheet.note("tools left alone", ok, (exchange.question, _calls_of(message), _said(message)))

    return chore
