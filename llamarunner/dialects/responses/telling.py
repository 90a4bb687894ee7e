"""A response: the document, and the events by which it comes.

response.created, response.in_progress
for each item   response.output_item.added … response.output_item.done
  a text        content_part.added, output_text.delta…, output_text.done, content_part.done
  reasoning     reasoning_text.delta…, reasoning_text.done
  a call        function_call_arguments.delta…, function_call_arguments.done
response.completed, or response.incomplete
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamarunner.dialects.chat_stream import Reading
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import sse

Document = dict[str, Any]

# What llama.cpp takes where nobody has said otherwise.
USUAL = {"temperature": 0.8, "top_p": 0.95, "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0}


def framed(events: Iterable[Document]) -> bytes:
    return b"".join(sse(dumps(event), event=event["type"]) for event in events)


@dataclass(slots=True)
class _Open:
    """The item that is being said."""

    item: Document
    index: int
    call: object = None  # which of the calls, by the model's count
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)


class Telling:
    """One response, from the stream of a chat. `asked` is the request, times are Unix times in seconds."""

    def __init__(self, response_id: str, asked: Mapping[str, Any], model: str, created: int) -> None:
        self.id = response_id
        self.reading = Reading()
        self.thought_tokens = 0  # llama.cpp has an event for each
        self.output: list[Document] = []
        self._asked = asked
        self._model = model
        self._created = created
        self._open: _Open | None = None
        self._number = -1

    def _start(self) -> list[Document]:
        begun = self.document("in_progress", None)
        return [self._event("response.created", response=begun), self._event("response.in_progress", response=begun)]

    def take(self, data: str) -> list[Document]:
        """Read the data of one event of the chat. Raises what the model's error means, or BackendFailed."""
        new = self.reading.take(data)
        told = self._start() if self._number < 0 else []
        if text := new.get("reasoning_content"):
            self.thought_tokens += 1
            told += self._say("reasoning", str(text), [])
        if text := new.get("content"):
            told += self._say("message", str(text), _logprobs(new))
        pieces = new.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict) and isinstance(piece.get("function"), dict):
                told += self._call(piece)
        return told

    def end(self, now: int) -> list[Document]:
        """Close what is open; the last event has the whole response."""
        told = self.close()
        whole = self.document(self.status, now)
        return [*told, self._event(f"response.{self.status}", response=whole)]

    @property
    def status(self) -> str:
        return "incomplete" if self.reading.finish_reason == "length" else "completed"

    def document(self, status: str, completed: int | None) -> Document:
        """The response as it is now, its keys in LM Studio's order."""
        asked, cut = self._asked, {"reason": "max_output_tokens"}
        usual = {name: asked[name] if asked.get(name) is not None else value for name, value in USUAL.items()}
        reasoning, text = asked.get("reasoning") or {}, asked.get("text") or {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": completed,
            "status": status,
            "incomplete_details": cut if status == "incomplete" else None,
            "model": self._model,
            "previous_response_id": asked.get("previous_response_id"),
            "instructions": asked.get("instructions"),
            "output": list(self.output),
            "error": None,
            "tools": asked.get("tools") or [],
            "tool_choice": asked.get("tool_choice") or "auto",
            "truncation": asked.get("truncation") or "disabled",
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "text": {**text, "format": text.get("format") or {"type": "text"}},
            **{name: usual[name] for name in ("top_p", "presence_penalty", "frequency_penalty", "top_logprobs")},
            "temperature": usual["temperature"],
            "reasoning": {"summary": reasoning.get("summary"), "effort": reasoning.get("effort")},
            "usage": self._usage() if completed else None,
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": asked.get("max_tool_calls"),
            "store": asked.get("store") is not False,
            "background": False,
            "service_tier": "default",
            "metadata": asked.get("metadata") or {},
            "safety_identifier": asked.get("safety_identifier"),
            "prompt_cache_key": asked.get("prompt_cache_key"),
        }

    def _usage(self) -> Document:
        tokens, details = self.reading.tokens, (self.reading.usage or {}).get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt, answer = tokens.prompt or 0, tokens.completion or 0
        return {
            "input_tokens": prompt,
            "output_tokens": answer,
            "total_tokens": prompt + answer,
            "input_tokens_details": {"cached_tokens": cached or 0},
            "output_tokens_details": {"reasoning_tokens": min(self.thought_tokens, answer)},
        }

    # ── items ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _say(self, kind: str, text: str, logprobs: list[Any]) -> list[Document]:
        told = [] if self._open and self._open.item["type"] == kind else self._begin(kind)
        assert self._open
        self._open.pieces.append(text)
        self._open.logprobs += logprobs
        more: Document = {"delta": text}
        if kind == "reasoning":
            return [*told, self._of_part("response.reasoning_text.delta", **more)]
        return [*told, self._of_part("response.output_text.delta", **more, logprobs=logprobs)]

    def _call(self, piece: Document) -> list[Document]:
        function, number = piece["function"], piece.get("index", 0)
        told: list[Document] = []
        if self._open is None or self._open.item["type"] != "function_call" or self._open.call != number:
            told += self._begin("function_call", name=str(function.get("name") or ""))
            assert self._open
            self._open.call = number
        assert self._open
        if isinstance(text := function.get("arguments"), str) and text:
            self._open.pieces.append(text)
            told.append(self._of_item("response.function_call_arguments.delta", delta=text))
        return told

    def _begin(self, kind: str, **more: str) -> list[Document]:
        told = self.close()
        index = len(self.output)
        prefix = {"reasoning": "rs", "message": "msg", "function_call": "fc"}[kind]
        own = f"{self.id.removeprefix('resp_')[:22]}{index:02x}"
        item: Document = {"id": f"{prefix}_{own}", "type": kind, "status": "in_progress"}
        match kind:
            case "message":
                item |= {"role": "assistant", "content": []}
            case "reasoning":
                item |= {"summary": [], "content": []}
            case _:
                item |= {"call_id": f"call_{own}", "arguments": "", **more}
        self._open = _Open(item, index)
        self.output.append(item)
        told.append(self._event("response.output_item.added", output_index=index, item=dict(item)))
        if kind == "message":
            told.append(self._of_part("response.content_part.added", part=_output_text("", [])))
        return told

    def close(self) -> list[Document]:
        """End the item that is open."""
        if self._open is None:
            return []
        item, text = self._open.item, "".join(self._open.pieces)
        match item["type"]:
            case "message":
                part = _output_text(text, self._open.logprobs)
                item["content"] = [part]
                told = [
                    self._of_part("response.output_text.done", text=text, logprobs=self._open.logprobs),
                    self._of_part("response.content_part.done", part=part),
                ]
            case "reasoning":
                item["content"] = [{"type": "reasoning_text", "text": text}]
                told = [self._of_part("response.reasoning_text.done", text=text)]
            case _:
                item["arguments"] = text
                told = [self._of_item("response.function_call_arguments.done", name=item["name"], arguments=text)]
        item["status"] = self.status
        told.append(self._event("response.output_item.done", output_index=self._open.index, item=dict(item)))
        self._open = None
        return told

    def _of_part(self, kind: str, **more: object) -> Document:
        return self._of_item(kind, content_index=0, **more)

    def _of_item(self, kind: str, **more: object) -> Document:
        assert self._open
        return self._event(kind, item_id=self._open.item["id"], output_index=self._open.index, **more)

    def _event(self, kind: str, **more: object) -> Document:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **more}


def _output_text(text: str, logprobs: list[Any]) -> Document:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def _logprobs(new: Mapping[str, Any]) -> list[Any]:
    told = new.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    return content if isinstance(content, list) else []
