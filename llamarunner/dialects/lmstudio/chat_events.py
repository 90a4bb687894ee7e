"""The answer of POST /api/v1/chat: its events in their order, and the document that remains of it.

    chat.start, model_load.*, then for each round prompt_processing.* and blocks of reasoning, text and calls of tools;
    error, wherever something fails; chat.end with the whole document, which is always the last.

Events are told as they happen: every method returns those that follow from what it is told, perhaps none. Blocks never
overlap; the calls of one answer are told one after the other. The names and fields are those of LM Studio's REST API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from llamarunner.dialects.lmstudio.errors import error_object
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import sse
from llamarunner.errors import LlamaRunnerError

Event = dict[str, Any]
Provider = Mapping[str, str]
Block = Literal["reasoning", "message"]
BLOCKS: dict[str, Block] = {"reasoning_content": "reasoning", "content": "message"}


@dataclass(frozen=True, slots=True)
class Message:
    type: Literal["message"]
    content: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    type: Literal["reasoning"]
    content: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that was made; `output` is the JSON text of what it gave."""

    type: Literal["tool_call"]
    tool: str
    arguments: dict[str, Any]
    output: str
    provider_info: dict[str, str]


@dataclass(frozen=True, slots=True)
class WhatWasWrong:
    type: Literal["invalid_name", "invalid_arguments"]
    tool_name: str
    arguments: dict[str, Any] | None = None
    provider_info: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class InvalidToolCall:
    type: Literal["invalid_tool_call"]
    reason: str
    metadata: WhatWasWrong


Item = Message | Reasoning | ToolCall | InvalidToolCall


@dataclass(frozen=True, slots=True)
class Stats:
    """Tokens, and seconds; those of all rounds, but `input_tokens`: of the last, which has read all."""

    input_tokens: int = 0
    total_output_tokens: int = 0
    reasoning_output_tokens: int = 0
    tokens_per_second: float = 0.0
    time_to_first_token_seconds: float = 0.0
    model_load_time_seconds: float | None = None  # only if the model was not loaded


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    model_instance_id: str
    output: list[Item]
    stats: Stats
    response_id: str | None = None  # if it is kept


def document(answer: ChatAnswer) -> Event:
    """The answer as JSON has it: what is None is not there."""
    told: Event = _without_nulls(asdict(answer))
    return told


def framed(events: Iterable[Event]) -> bytes:
    return b"".join(sse(dumps(event), event=event["type"]) for event in events)


@dataclass(slots=True)
class Telling:
    """The answer so far. Of whole answers nobody reads the events."""

    instance: str
    items: list[Item] = field(default_factory=list)
    started: bool = False
    _block: Block | None = None
    _pieces: list[str] = field(default_factory=list)
    _prompt: float | None = None  # how much of it is processed; None before it began
    _prompt_done: bool = True
    _load: float | None = None

    def start(self) -> list[Event]:
        """Open the chat, once."""
        begin = [] if self.started else [{"type": "chat.start", "model_instance_id": self.instance}]
        self.started = True
        return begin

    # ── loading ────────────────────────────────────────────────────────────────────────────────────────────────────

    def loading(self, fraction: float | None) -> list[Event]:
        """The model is being loaded, and so far come."""
        told = self.start()
        if self._load is None:
            told.append(self._of_instance("model_load.start"))
            self._load = -1.0
        if fraction is not None and fraction > self._load:
            told.append(self._of_instance("model_load.progress", progress=fraction))
            self._load = fraction
        return told

    def loaded(self, seconds: float) -> list[Event]:
        """It is loaded, if it was loading."""
        if self._load is None:
            return []
        told = self.loading(1.0)
        self._load = None
        return [*told, self._of_instance("model_load.end", load_time_seconds=round(seconds, 3))]

    def _of_instance(self, kind: str, **more: object) -> Event:
        return {"type": kind, "model_instance_id": self.instance, **more}

    # ── a round ────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_round(self) -> None:
        self._prompt, self._prompt_done = None, False

    def prompt(self, fraction: float) -> list[Event]:
        """So much of the prompt is processed, from 0 to 1."""
        if self._prompt_done:
            return []
        told = self.start()
        if self._prompt is None:
            told.append({"type": "prompt_processing.start"})
            self._prompt = -1.0
        if fraction > self._prompt:
            told.append({"type": "prompt_processing.progress", "progress": fraction})
            self._prompt = fraction
        return told

    def prompt_done(self) -> list[Event]:
        """The first token is there, or the end."""
        if self._prompt_done:
            return []
        told = self.prompt(1.0)
        self._prompt_done = True
        return [*told, {"type": "prompt_processing.end"}]

    def said(self, texts: Mapping[str, str]) -> list[Event]:
        """A piece of a text, by the field of it."""
        told: list[Event] = []
        for name, text in texts.items():
            told += self.prompt_done() + self._enter(BLOCKS[name])
            self._pieces.append(text)
            told.append({"type": f"{self._block}.delta", "content": text})
        return told

    def _enter(self, block: Block) -> list[Event]:
        if self._block is block:
            return []
        told = self.pause()
        self._block = block
        return [*told, {"type": f"{block}.start"}]

    def pause(self) -> list[Event]:
        """Close the block that is open."""
        if self._block is None:
            return []
        text, block = "".join(self._pieces), self._block
        self.items.append(Message("message", text) if block == "message" else Reasoning("reasoning", text))
        self._block = None
        self._pieces.clear()
        return [{"type": f"{block}.end"}]

    # ── tools ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def calling(self, tool: str, provider: Provider) -> list[Event]:
        """The model calls a tool; how is not said yet."""
        told = self.prompt_done() + self.pause()
        return [*told, {"type": "tool_call.start", "tool": tool, "provider_info": dict(provider)}]

    def called(self, tool: str, arguments: Mapping[str, Any], provider: Provider) -> list[Event]:
        """It has said how."""
        return [self._of_call("tool_call.arguments", tool, arguments, provider)]

    def answered(self, tool: str, arguments: Mapping[str, Any], output: str, provider: Provider) -> list[Event]:
        """The tool has answered."""
        self.items.append(ToolCall("tool_call", tool, dict(arguments), output, dict(provider)))
        return [{**self._of_call("tool_call.success", tool, arguments, provider), "output": output}]

    def not_a_call(self, reason: str, wrong: WhatWasWrong) -> list[Event]:
        """The call cannot be made."""
        told = self.prompt_done() + self.pause()
        self.items.append(InvalidToolCall("invalid_tool_call", reason, wrong))
        return [*told, {"type": "tool_call.failure", "reason": reason, "metadata": _without_nulls(asdict(wrong))}]

    def _of_call(self, kind: str, tool: str, arguments: Mapping[str, Any], provider: Provider) -> Event:
        return {"type": kind, "tool": tool, "arguments": dict(arguments), "provider_info": dict(provider)}

    # ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────

    def failed(self, error: LlamaRunnerError) -> list[Event]:
        """Something went wrong; more may follow."""
        return [*self.start(), *self.pause(), {"type": "error", "error": error_object(error)}]

    def end(self, stats: Stats, response_id: str | None) -> list[Event]:
        """The whole answer again; nothing follows."""
        told = self.start() + self.pause()
        return [*told, {"type": "chat.end", "result": document(self.answer(stats, response_id))}]

    def answer(self, stats: Stats, response_id: str | None) -> ChatAnswer:
        return ChatAnswer(self.instance, self.items, stats, response_id)


def _without_nulls(value: Any) -> Any:
    """Leave out what is None of a document of ours; what is inside of a call's arguments stays as it is."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if one is not None}
        return {key: one if key == "arguments" else _without_nulls(one) for key, one in kept.items()}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
