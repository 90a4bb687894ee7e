"""What llama.cpp's OpenAI-shaped server answers, said in Ollama's objects.

    answer = Answer("demo-chat", CHAT)
    for event in stream:
        for line in answer.feed(event, now):
            …
    last = answer.done(now, Durations(total, load))

Each event may hold thoughts, text and pieces of tool calls; thoughts and text become objects at once, tool calls only
when they are whole. An answer in one piece is fed as one event, and `whole` puts all objects into one.
The time is passed in, in nanoseconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llamarunner.errors import BackendFailed

Object = dict[str, Any]
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Where an API puts text: in `message.content`, or in `response`."""

    message: bool

    def said(self, text: str = "", thinking: str = "", calls: list[Object] | None = None) -> Object:
        extra = {"thinking": thinking} if thinking else {}
        if calls:
            extra["tool_calls"] = calls  # type: ignore[assignment]
        if self.message:
            return {"message": {"role": "assistant", "content": text, **extra}}
        return {"response": text, **extra}


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
    context: list[int] | None = None
    reason: str = "stop"
    timings: Mapping[str, Any] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)

    def feed(self, event: Mapping[str, Any], now: int) -> list[Object]:
        """Read one event of the stream; returns the objects to send."""
        self.timings = event.get("timings") or self.timings
        choices = event.get("choices")
        if not choices:
            return []
        choice = choices[0]
        delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        for piece in delta.get("tool_calls") or ():
            self._collect(piece)
        lines = self._texts(delta, choice.get("logprobs"), now)
        if finish := choice.get("finish_reason"):
            self.reason = "length" if finish == "length" else "stop"
            if self.calls:
                lines.append(self._line(now, self.shape.said(calls=self._tool_calls())))
        return lines

    def done(self, now: int, durations: Durations) -> Object:
        """The last object."""
        return self._line(now, self.shape.said(), done=True) | self._end(durations)

    def whole(self, lines: list[Object], now: int, durations: Durations) -> Object:
        """All objects of an answer as one, with its end."""
        told = [line["message"] if self.shape.message else line for line in lines]
        key = "content" if self.shape.message else "response"
        text = "".join(one[key] for one in told)
        thinking = "".join(one.get("thinking", "") for one in told)
        calls = [call for one in told for call in one.get("tool_calls", ())]
        logprobs = [one for line in lines for one in line.get("logprobs", ())]
        said = self._line(now, self.shape.said(text, thinking, calls), done=True)
        return said | ({"logprobs": logprobs} if logprobs else {}) | self._end(durations)

    def _texts(self, delta: Mapping[str, Any], logprobs: Any, now: int) -> list[Object]:
        thinking, text = delta.get("reasoning_content"), delta.get("content")
        lines = [self._line(now, self.shape.said(thinking=thinking))] if thinking else []
        if text:
            lines.append(self._line(now, self.shape.said(text)))
        if lines and isinstance(logprobs, Mapping):
            lines[-1]["logprobs"] = [self._logprob(one) for one in logprobs.get("content") or ()]
        return lines

    def _line(self, now: int, said: Object, done: bool = False) -> Object:
        return {"model": self.model, "created_at": created_at(now), **said, "done": done}

    def _end(self, durations: Durations) -> Object:
        told = self.timings
        figures = {
            "total_duration": durations.total,
            "load_duration": durations.load,
            "prompt_eval_count": _count(told, "prompt_n") + _count(told, "cache_n"),
            "prompt_eval_duration": _nanoseconds(told, "prompt_ms"),
            "eval_count": _count(told, "predicted_n"),
            "eval_duration": _nanoseconds(told, "predicted_ms"),
        }
        context = {} if self.context is None else {"context": self.context}
        return {"done_reason": self.reason, **context, **{key: value for key, value in figures.items() if value}}

    def _collect(self, piece: Mapping[str, Any]) -> None:
        call = self.calls.setdefault(piece.get("index") or 0 if "index" in piece else len(self.calls), Call())
        function = piece.get("function") or {}
        call.id = piece.get("id") or call.id
        call.name += function.get("name") or ""
        call.arguments += function.get("arguments") or ""

    def _tool_calls(self) -> list[Object]:
        return [_tool_call(number, call) for number, call in enumerate(self.calls.values())]

    def _logprob(self, one: Mapping[str, Any]) -> Object:
        told = {key: one.get(key) for key in ("token", "logprob", "bytes")}
        if self.top_logprobs:
            top = (one.get("top_logprobs") or ())[: self.top_logprobs]
            told["top_logprobs"] = [{key: other.get(key) for key in ("token", "logprob", "bytes")} for other in top]
        return told


def loaded(model: str, shape: Shape, reason: str, now: int) -> Object:
    """The answer to an empty request, which loads or unloads the model."""
    return {
        "model": model,
        "created_at": created_at(now),
        **shape.said(),
        "done": True,
        "done_reason": reason,
    }


def created_at(now: int) -> str:
    """Write a moment as RFC 3339 with six digits, which every reader of such times takes."""
    seconds, rest = divmod(now, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1000:06d}Z"


def _tool_call(number: int, call: Call) -> Object:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BackendFailed(f'The model gave tool call arguments for "{call.name}" that are no JSON object.')
    return {"id": call.id, "function": {"index": number, "name": call.name, "arguments": arguments}}


def _count(timings: Mapping[str, Any], key: str) -> int:
    value = timings.get(key)
    return int(value) if isinstance(value, int | float) else 0


def _nanoseconds(timings: Mapping[str, Any], key: str) -> int:
    value = timings.get(key)
    return int(value * MILLION) if isinstance(value, int | float) else 0
