"""A streamed chat in OpenAI's language, read piece by piece for those who speak another one.

{"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": null}]}
{"choices": [], "usage": {"prompt_tokens": 9, …}}
[DONE]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from llamarunner.dialects import llama_cpp
from llamarunner.dialects.sse import DONE
from llamarunner.dialects.usage import Usage, told
from llamarunner.errors import BackendFailed, LlamaRunnerError

FIELDS = ("content", "reasoning_content", "tool_calls")


class Reading:
    """What is known of one answer so far; of several choices only the first is read."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.prompt_done: float | None = None  # how much of the prompt is processed, from 0 to 1, once it is told
        self._timings: dict[str, Any] = {}
        self._done = False

    @property
    def complete(self) -> bool:
        """Whether the model has come to an end, or the stream just broke off."""
        return self._done or self.finish_reason is not None

    @property
    def timings(self) -> Mapping[str, Any]:
        """What llama.cpp tells of how long it took, as far as it has been told."""
        return self._timings

    @property
    def tokens(self) -> Usage:
        """How many tokens it was, as far as it has been told."""
        return told(self.usage or {}, self._timings)

    def take(self, data: str) -> dict[str, Any]:
        """Read the data of one event; return what is new of the answer, by field.

        Raises what the model's error means, or BackendFailed for what is no event of a chat.
        """
        if data == DONE:
            self._done = True
            return {}
        chunk = event_of(data)
        self.usage = chunk.get("usage") or self.usage
        self._timings = chunk.get("timings") or self._timings
        if progress := chunk.get("prompt_progress"):
            self.prompt_done = _share(progress)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta") or {}
        new = {field: delta[field] for field in FIELDS if delta.get(field)}
        return new | ({"logprobs": choice["logprobs"]} if choice.get("logprobs") else {})


def _share(progress: Any) -> float:
    """What llama.cpp says of it with `return_progress`: {"total": 20, "cache": 4, "processed": 20, "time_ms": 3}."""
    told = progress if isinstance(progress, dict) else {}
    total, processed = told.get("total"), told.get("processed")
    if not isinstance(total, int) or not isinstance(processed, int) or total <= 0:
        return 0.0
    return min(max(processed / total, 0.0), 1.0)


def event_of(data: str) -> dict[str, Any]:
    """Read the data of one event. Raises what the model's error means, or BackendFailed for what is no event."""
    chunk = _object(data)
    if "error" in chunk:
        raise _failure(chunk, data)
    return chunk


def _object(data: str) -> dict[str, Any]:
    try:
        document = from_json(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BackendFailed("The model's process sent an event that is no JSON object.")
    return document


def _failure(chunk: dict[str, Any], data: str) -> LlamaRunnerError:
    error = chunk["error"]
    code = error.get("code") if isinstance(error, dict) else None
    return llama_cpp.refusal(code if isinstance(code, int) else 500, data.encode())
