"""A model's answer in a chat with tools: it is asked, its calls are made, and it is asked again until it makes none.

Nothing is known here of how the answer is told: `tell` gets LM Studio's events as they happen, and the answer that
remains is in `telling`. The model is leased for each round anew, so that a slow tool holds up nobody else.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from llamarunner.catalog import NO_PRESET, ModelEntry
from llamarunner.dialects import chat_turn
from llamarunner.dialects.chat_turn import Call, Document, Turn
from llamarunner.dialects.lmstudio.chat_events import Event, Stats, Telling, WhatWasWrong
from llamarunner.dialects.ollama import presets
from llamarunner.dialects.sse import Splitter
from llamarunner.errors import BackendFailed
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.server import upstream
from llamarunner.server.record import Record
from llamarunner.server.services import Services
from llamarunner.server.upstream import Answer, Body
from llamarunner.server.watch import Phase, Watch
from llamarunner.toolbox import Tool, Toolbox
from llamarunner.toolbox.arguments import complaint

PATH = "/v1/chat/completions"

Tell = Callable[[list[Event]], Awaitable[None]]
Ask = Callable[[AsyncExitStack, upstream.Call, Watch], Awaitable[Answer]]


@dataclass(slots=True)
class Conversation:
    """One answer, of as many rounds as it takes. `said` is all that was said before, the new message included."""

    services: Services
    record: Record
    entry: ModelEntry
    manner: Manner
    sampling: Mapping[str, Any]
    said: list[Document]
    telling: Telling
    ask: Ask
    tell: Tell
    most_rounds: int  # with tools; one more, without, ends a chat that would go on for ever
    fresh: list[Document] = field(default_factory=list)  # what the answer adds to what was said
    _tokens: int = 0
    _thought_tokens: int = 0
    _input_tokens: int = 0
    _timed_tokens: float = 0.0
    _seconds: float = 0.0  # of generating those
    _load_seconds: float = 0.0
    _first_token: float | None = None

    async def run(self, toolbox: Toolbox, watch: Watch) -> None:
        """Ask until there is an answer. Raises what `upstream.ask` raises, and for a server of tools that is lost."""
        tools = {tool.name: tool for tool in toolbox.tools}
        for number in range(self.most_rounds + 1):
            usable = tools if number < self.most_rounds else {}
            turn = await self._round(usable, watch)
            self.fresh.append(turn.message(with_calls=bool(usable)))
            if not usable:
                return
            for at, call in enumerate(turn.calls):
                await self._make(call, toolbox, tools, watch, begun=at == 0)
            if not turn.calls:
                return

    @property
    def stats(self) -> Stats:
        speed = self._timed_tokens / self._seconds if self._seconds > 0 else 0.0
        return Stats(
            input_tokens=self._input_tokens,
            total_output_tokens=self._tokens,
            reasoning_output_tokens=min(self._thought_tokens, self._tokens),
            tokens_per_second=speed,
            time_to_first_token_seconds=round(self._first_token or 0.0, 3),
            model_load_time_seconds=round(self._load_seconds, 3) if self._load_seconds else None,
        )

    # ── a round ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _round(self, tools: Mapping[str, Tool], watch: Watch) -> Turn:
        turn, splitter, asked_at = Turn(chat_turn.calls_in(self._all)), Splitter(), time.monotonic()
        self.telling.begin_round()
        async with AsyncExitStack() as stack:
            answer = await self.ask(stack, self._call(tools.values()), watch)
            self._leased(answer)
            began = 0.0
            try:
                while chunk := await answer.some():
                    watch.phase(Phase.NEXT_BYTE)
                    events = [one for event in splitter.feed(chunk) for one in self._heard(turn, event.data, tools)]
                    if not began and (turn.calls or turn.spoken):
                        began = self._first(asked_at + answer.lease.load_seconds)
                    if events:
                        await self.tell(events)
            finally:
                self._count(turn, time.monotonic() - began if began else 0.0)
        if not turn.reading.complete:
            raise BackendFailed(f"The model '{self.entry.id}' broke off its answer.")
        await self.tell(self.telling.prompt_done() + self.telling.pause())
        return turn

    def _first(self, asked_at: float) -> float:
        """The first token of a round is here; returns when that was."""
        now = time.monotonic()
        if self._first_token is None:
            self._first_token = now - asked_at
            self.record.first_token()
        return now

    @property
    def _all(self) -> list[Document]:
        return self.said + self.fresh

    def _call(self, tools: Any) -> upstream.Call:
        document = {**self.sampling, "model": self.entry.instance_id, "messages": self._all}
        if told := [chat_turn.function(tool.name, tool.description, tool.parameters) for tool in tools]:
            document["tools"] = told
        if self.entry.preset != NO_PRESET:
            document = presets.passed_on(PATH, document, self.entry.preset)
        return upstream.Call(self.entry, Task.GENERATE, PATH, Body(document), self.manner)

    def _leased(self, answer: Answer) -> None:
        if not self._load_seconds:
            self.record.leased(answer.lease)
        self._load_seconds = self._load_seconds or answer.lease.load_seconds

    def _heard(self, turn: Turn, data: str, tools: Mapping[str, Tool]) -> list[Event]:
        begun, progress = _named(turn), turn.reading.prompt_done
        new = turn.take(data)
        told: list[Event] = []
        if turn.reading.prompt_done is not None and turn.reading.prompt_done != progress:
            told += self.telling.prompt(turn.reading.prompt_done)
        told += self.telling.said(new)
        if not begun and (name := _named(turn)) in tools:
            told += self.telling.calling(name, tools[name].provider)
        return told

    def _count(self, turn: Turn, seconds: float) -> None:
        """Add up what a round has cost, also one that failed; `seconds` are since its first token."""
        usage, timings = turn.reading.tokens, turn.reading.timings
        self._input_tokens = usage.prompt or self._input_tokens
        tokens = usage.completion or 0
        self._tokens += tokens
        self._thought_tokens += turn.thought_tokens
        generating: Any = timings.get("predicted_ms")
        timed = isinstance(generating, int | float) and generating > 0
        self._seconds += generating / 1000 if timed else seconds
        self._timed_tokens += tokens

    # ── tools ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _make(
        self, call: Call, toolbox: Toolbox, tools: Mapping[str, Tool], watch: Watch, *, begun: bool
    ) -> None:
        """Make one call, and leave what it gave for the model. Raises for a server that is lost."""
        tool, arguments = tools.get(call.name), call.arguments
        if tool is None:
            reason = f"Cannot find tool with name {call.name[:200]}."
            wrong = WhatWasWrong("invalid_name", call.name[:200])
            await self._refuse(call, reason, wrong)
            return
        provider = dict(tool.provider)
        if not begun:
            await self.tell(self.telling.calling(tool.name, provider))
        fault = "they are not a JSON object" if arguments is None else complaint(tool, arguments)
        if arguments is None or fault:
            reason = f"Invalid arguments for tool {tool.name}: {fault}."
            await self._refuse(call, reason, WhatWasWrong("invalid_arguments", tool.name, arguments or {}, provider))
            return
        await self.tell(self.telling.called(tool.name, arguments, provider))
        watch.phase(Phase.FETCH)  # a toolbox has limits of its own
        output = (await toolbox.call(tool.name, arguments)).output
        self.fresh.append(chat_turn.result(call, chat_turn.plain(output)))
        await self.tell(self.telling.answered(tool.name, arguments, output, provider))

    async def _refuse(self, call: Call, reason: str, wrong: WhatWasWrong) -> None:
        self.fresh.append(chat_turn.result(call, f"Error: {reason}"))
        await self.tell(self.telling.not_a_call(reason, wrong))


def _named(turn: Turn) -> str:
    """The tool of the first call, as soon as it is named."""
    return turn.calls[0].name if turn.calls else ""


def messages_of(turns: Sequence[Mapping[str, Any]]) -> list[Document]:
    """What was said in turns that were kept."""
    return [message for turn in turns for message in turn.get("messages", [])]
