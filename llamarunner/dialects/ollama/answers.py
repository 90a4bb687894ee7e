"""What llama.cpp answers, said in Ollama's objects.

    answer = Answer("demo-chat", CHAT)
    for event in stream:
        for line in answer.feed(event, now):
            …
    last = answer.done(now, Durations(total, load))

Each event may hold thoughts, text and pieces of tool calls; thoughts and text become objects at once, tool calls only
when they are whole. An answer in one piece is fed as one event, and `whole` puts all objects into one. The events may
be of a chat, of a completion, or of `/infill`. The time is passed in, in nanoseconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import Any

from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.usage import Usage, told
from llamarunner.errors import BackendFailed

Object = dict[str, Any]
MILLION = 1_000_000
NOTHING: Mapping[str, Any] = {}
TEXT, THOUGHT = "content", "reasoning_content"  # of a delta
PIECES = frozenset({TEXT, THOUGHT})
HOLE = "\0"


@dataclass(frozen=True, slots=True)
class Shape:
    """Where an API puts text: in `message.content`, or in `response`."""

    message: bool

    def said(self, text: str = "", thinking: str = "", calls: list[Object] | None = None) -> Object:
        said: Object = {"role": "assistant", "content": text} if self.message else {"response": text}
        if thinking:
            said["thinking"] = thinking
        if calls:
            said["tool_calls"] = calls
        return {"message": said} if self.message else said


CHAT = Shape(message=True)
GENERATE = Shape(message=False)


@dataclass(frozen=True, slots=True)
class Durations:
    """Nanoseconds that only the server knows: of the whole request, and until the model was there."""

    total: int
    load: int


@dataclass(slots=True)
class Call:
    """One tool call, as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """One answer of one model; `model` is its name as the client said it."""

    model: str
    shape: Shape
    top_logprobs: int = 0
    finished: bool = False  # whether the model came to an end, or the stream just broke off
    reason: str = "stop"
    timings: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    patterns: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    logprobs: list[Object] = field(default_factory=list)  # of tokens that no object was made of yet

    @property
    def tokens(self) -> Usage:
        """How many tokens it was, as far as it has been told."""
        return told(self.usage, self.timings)

    def feed(self, event: Mapping[str, Any], now: int) -> list[Object]:
        """Read one event of the stream; returns the objects to send."""
        self.timings = event.get("timings") or self.timings
        self.usage = event.get("usage") or self.usage
        choices = event.get("choices")
        choice = choices[0] if choices else _of_infill(event)
        delta = choice.get("delta") or choice.get("message") or NOTHING
        for piece in delta.get("tool_calls") or ():
            self._collect(piece)
        lines = self._texts(delta, choice, now)
        if finish := choice.get("finish_reason"):
            self.finished, self.reason = True, "length" if finish == "length" else "stop"
            if self.calls:
                lines.append(self._line(now, self.shape.said(calls=self._tool_calls())))
        return lines

    def lines(self, event: Mapping[str, Any], now: int) -> bytes:
        """What `feed` makes of an event, as lines of JSON; a mere piece of text, as most are, takes a short way."""
        choices = event.get("choices") or (NOTHING,)
        choice, delta = choices[0], choices[0].get("delta")
        if delta and len(delta) == 1 and not (choice.get("finish_reason") or choice.get("logprobs") or self.logprobs):
            [(kind, text)] = delta.items()
            if kind in PIECES and text and isinstance(text, str):
                opening, middle, end = self._pattern(kind)
                return f"{opening}{created_at(now)}{middle}{quoted(text)}{end}".encode()
        return b"".join(dumps(line) + b"\n" for line in self.feed(event, now))

    def _pattern(self, kind: str) -> tuple[str, str, str]:
        """What stands in a line before its time, before its text, and after it."""
        if kind not in self.patterns:
            said = self.shape.said(HOLE) if kind == TEXT else self.shape.said(thinking=HOLE)
            opening, middle, end = dumps(self._line(0, said) | {"created_at": HOLE}).decode().split(quoted(HOLE))
            self.patterns[kind] = opening + '"', '"' + middle, end + "\n"
        return self.patterns[kind]

    def done(self, now: int, durations: Durations, context: list[int] | None = None) -> Object:
        """The last object; `context` are the tokens of prompt and answer, for those who go on from there."""
        return self._line(now, self.shape.said(), done=True) | self._rest_of_logprobs() | self._end(durations, context)

    def whole(self, lines: list[Object], now: int, durations: Durations, context: list[int] | None = None) -> Object:
        """All objects of an answer as one, with its end."""
        text, thinking = text_of(lines), "".join(one.get("thinking", "") for one in _said(lines))
        calls = [call for one in _said(lines) for call in one.get("tool_calls", ())]
        self.logprobs = [one for line in lines for one in line.get("logprobs", ())] + self.logprobs
        said = self._line(now, self.shape.said(text, thinking, calls), done=True)
        return said | self._rest_of_logprobs() | self._end(durations, context)

    def _texts(self, delta: Mapping[str, Any], choice: Mapping[str, Any], now: int) -> list[Object]:
        thinking, text = delta.get(THOUGHT), delta.get(TEXT) or choice.get("text")
        lines = [self._line(now, self.shape.said(thinking=thinking))] if thinking else []
        if text:
            lines.append(self._line(now, self.shape.said(text)))
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, Mapping):
            self.logprobs += [self._logprob(one) for one in logprobs.get("content") or ()]
        if lines and self.logprobs:
            lines[-1] |= self._rest_of_logprobs()
        return lines

    def _line(self, now: int, said: Object, done: bool = False) -> Object:
        return {"model": self.model, "created_at": created_at(now), **said, "done": done}

    def _end(self, durations: Durations, context: list[int] | None) -> Object:
        tokens = self.tokens
        figures = {
            "total_duration": durations.total,
            "load_duration": durations.load,
            "prompt_eval_count": tokens.prompt,
            "prompt_eval_duration": _nanoseconds(self.timings, "prompt_ms"),
            "eval_count": tokens.completion,
            "eval_duration": _nanoseconds(self.timings, "predicted_ms"),
        }
        remembered = {} if context is None else {"context": context}
        return {"done_reason": self.reason, **remembered, **{key: value for key, value in figures.items() if value}}

    def _collect(self, piece: Mapping[str, Any]) -> None:
        index = piece.get("index")
        call = self.calls.setdefault(len(self.calls) if index is None else index, Call())
        function = piece.get("function") or NOTHING
        call.id = piece.get("id") or call.id
        call.name += function.get("name") or ""
        call.arguments += function.get("arguments") or ""

    def _tool_calls(self) -> list[Object]:
        return [_tool_call(number, call) for number, call in enumerate(self.calls.values())]

    def _rest_of_logprobs(self) -> Object:
        rest, self.logprobs = self.logprobs, []
        return {"logprobs": rest} if rest else {}

    def _logprob(self, one: Mapping[str, Any]) -> Object:
        said: Object = {key: one.get(key) for key in ("token", "logprob", "bytes")}
        if self.top_logprobs:
            top = (one.get("top_logprobs") or ())[: self.top_logprobs]
            said["top_logprobs"] = [{key: other.get(key) for key in ("token", "logprob", "bytes")} for other in top]
        return said


def text_of(lines: list[Object]) -> str:
    """The text of some objects of an answer, without its thoughts."""
    return "".join(one.get("content") or one.get("response") or "" for one in _said(lines))


def loaded(model: str, shape: Shape, reason: str, now: int) -> Object:
    """The answer to an empty request, which loads or unloads the model."""
    return {"model": model, "created_at": created_at(now), **shape.said(), "done": True, "done_reason": reason}


def created_at(now: int) -> str:
    """Write a moment as RFC 3339 with six digits, which every reader of such times takes."""
    seconds, rest = divmod(now, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _said(lines: list[Object]) -> list[Object]:
    return [line.get("message", line) for line in lines]


def _of_infill(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `/infill` says, as a choice of a completion."""
    if "content" not in event:
        return NOTHING
    reason = "length" if event.get("stop_type") == "limit" else "stop"
    return {
        "text": event["content"],
        "finish_reason": reason if event.get("stop") else None,
        "logprobs": {"content": event.get("completion_probabilities")},
    }


def _tool_call(number: int, call: Call) -> Object:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BackendFailed(f'The model gave tool call arguments for "{call.name}" that are no JSON object.')
    return {"id": call.id, "function": {"index": number, "name": call.name, "arguments": arguments}}


def _nanoseconds(timings: Mapping[str, Any], key: str) -> int:
    value = timings.get(key)
    return int(value * MILLION) if isinstance(value, int | float) else 0
