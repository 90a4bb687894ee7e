"""One answer of a model in a chat with tools: read from its stream, and what it leaves for the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from llamarunner.dialects.chat_stream import Reading
from llamarunner.dialects.strict_json import dumps

Document = dict[str, Any]
MOST_CALLS = 64  # in one answer; a model that has run away makes no more


@dataclass(slots=True)
class Call:
    """A call of a tool, as far as the model has said it."""

    id: str  # ours: nine digits, which the strictest templates want
    name: str = ""
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The arguments as the model wrote them."""
        return "".join(self._pieces)

    @property
    def arguments(self) -> Document | None:
        """The arguments; None if they are no JSON object."""
        try:
            value = from_json(self.text or "{}", allow_inf_nan=False)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def take(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        if not isinstance(function, dict):
            return
        if isinstance(function.get("name"), str):
            self.name = self.name or function["name"]
        if isinstance(function.get("arguments"), str):
            self._pieces.append(function["arguments"])


class Turn:
    """What one stream has said so far. `first` is the number of the first call, which makes the ids of all differ."""

    def __init__(self, first: int = 0) -> None:
        self.reading = Reading()
        self.calls: list[Call] = []
        self.spoken = False  # whether there is any text
        self.thought_tokens = 0  # llama.cpp has an event for each
        self._first = first
        self._by_index: dict[object, Call] = {}
        self._texts: dict[str, list[str]] = {"reasoning_content": [], "content": []}

    def take(self, data: str) -> Document:
        """Read the data of one event; return what is new of the texts, by field.

        Raises what the model's error means, or BackendFailed.
        """
        new = self.reading.take(data)
        said = {name: new[name] for name in self._texts if isinstance(new.get(name), str)}
        for name, text in said.items():
            self._texts[name].append(text)
        self.spoken = self.spoken or bool(said)
        self.thought_tokens += "reasoning_content" in said
        pieces = new.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                self._take_call(piece)
        return said

    def _take_call(self, piece: Document) -> None:
        index = piece.get("index", 0)
        if index not in self._by_index:
            if len(self.calls) == MOST_CALLS:
                return
            self._by_index[index] = Call(f"{(self._first + len(self.calls)) % 10**9:09d}")
            self.calls.append(self._by_index[index])
        self._by_index[index].take(piece)

    def message(self, *, with_calls: bool = True) -> Document:
        """The answer as a message of OpenAI's; arguments that are no JSON, which no template takes, are left out."""
        said: Document = {"role": "assistant", "content": "".join(self._texts["content"])}
        if thought := "".join(self._texts["reasoning_content"]):
            said["reasoning_content"] = thought
        if self.calls and with_calls:
            said["tool_calls"] = [_written(call) for call in self.calls]
        return said


def result(call: Call, text: str) -> Document:
    """The message that answers a call."""
    return {"role": "tool", "tool_call_id": call.id, "content": text}


def plain(output: str) -> str:
    """What a model reads of a call's output, the JSON text of MCP's content: its texts alone, if it has only those."""
    try:
        parts = from_json(output)
    except ValueError:
        return output
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts] if isinstance(parts, list) else []
    return "\n".join(map(str, texts)) if texts and None not in texts else output


def function(name: str, description: str, parameters: Mapping[str, object]) -> Document:
    """A tool as a model is told of it."""
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def calls_in(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many calls there are in what was said."""
    return sum(len(message.get("tool_calls") or ()) for message in messages)


def _written(call: Call) -> Document:
    arguments = dumps(call.arguments or {}).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
