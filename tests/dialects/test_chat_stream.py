"""Chunks of a streamed chat, as llama.cpp sends them, and as it should not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner.dialects.chat_stream import Reading
from llamarunner.dialects.llama_cpp import ContextLengthExceeded
from llamarunner.errors import BackendFailed, LlamaRunnerError


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **more}]})


def test_a_chat_from_its_role_to_its_usage() -> None:
    reading = Reading()
    said = [
        chunk({"role": "assistant", "content": None}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Hel"}, logprobs={"content": []}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk({}, "tool_calls"),
        json.dumps({"choices": [], "usage": {"prompt_tokens": 3}}),
    ]
    assert [reading.take(data) for data in said] == [
        {},
        {"reasoning_content": "hm"},
        {"content": "Hel", "logprobs": {"content": []}},
        {"tool_calls": [{"index": 0}]},
        {},
        {},
    ]
    assert (reading.finish_reason, reading.usage) == ("tool_calls", {"prompt_tokens": 3})


@pytest.mark.parametrize("last", ["[DONE]", chunk({}, "stop")])
def test_an_answer_is_complete_with_a_reason_or_the_last_event(last: str) -> None:
    reading = Reading()
    reading.take(chunk({"content": "x"}))
    assert not reading.complete
    reading.take(last)
    assert reading.complete


def test_an_error_in_the_middle_is_raised_as_what_it_means() -> None:
    error = {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 9}
    with pytest.raises(ContextLengthExceeded, match="too long"):
        Reading().take(json.dumps({"error": error}))


@pytest.mark.parametrize("data", ['{"error": "boom"}', '{"error": {"code": "x"}}', '{"error": null}'])
def test_an_error_of_any_shape_is_an_error(data: str) -> None:
    with pytest.raises(LlamaRunnerError):
        Reading().take(data)


@pytest.mark.parametrize("data", ["", "{", "[]", "7", "[" * 100_000, "null"])
def test_what_is_no_object_is_the_models_failure(data: str) -> None:
    with pytest.raises(BackendFailed):
        Reading().take(data)
