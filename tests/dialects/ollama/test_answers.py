"""What becomes of llama.cpp's answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects.ollama.answers import CHAT, GENERATE, Answer, Durations, created_at, loaded
from llamarunner.dialects.strict_json import dumps
from llamarunner.errors import BackendFailed

NOW = 1_736_159_400_123_456_789
TIMES = Durations(total=900, load=100)
TIMINGS = {"cache_n": 2, "prompt_n": 5, "prompt_ms": 1.5, "predicted_n": 3, "predicted_ms": 2.25}


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta or {}, "finish_reason": finish}], **more}


def test_text_and_thoughts() -> None:
    answer = Answer("a", CHAT)
    lines = answer.feed(event({"reasoning_content": "hm"}), NOW) + answer.feed(event({"content": "yes"}), NOW)
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "yes"},
    ]
    assert not any(line["done"] for line in lines)
    answer.feed(event(finish="stop", timings=TIMINGS), NOW)
    assert answer.done(NOW, TIMES) == {
        "model": "a",
        "created_at": "2025-01-06T10:30:00.123456Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "total_duration": 900,
        "load_duration": 100,
        "prompt_eval_count": 7,
        "prompt_eval_duration": 1_500_000,
        "eval_count": 3,
        "eval_duration": 2_250_000,
    }


def test_a_tool_call_comes_whole_and_before_the_end() -> None:
    answer = Answer("a", CHAT)
    pieces = [
        {"index": 0, "id": "x", "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 1, "id": "y", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ]
    assert [line for piece in pieces for line in answer.feed(event({"tool_calls": [piece]}), NOW)] == []
    (line,) = answer.feed(event(finish="tool_calls"), NOW)
    assert line["done"] is False
    assert line["message"]["tool_calls"] == [
        {"id": "x", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
        {"id": "y", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert answer.done(NOW, TIMES)["done_reason"] == "stop"


def test_arguments_that_are_no_object_are_a_failure_of_the_model() -> None:
    answer = Answer("a", CHAT)
    answer.feed(event({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "[1"}}]}), NOW)
    with pytest.raises(BackendFailed, match="no JSON object"):
        answer.feed(event(finish="tool_calls"), NOW)


def test_an_answer_in_one_piece() -> None:
    answer = Answer("a", GENERATE)
    message = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    lines = answer.feed({"choices": [{"message": message, "finish_reason": "length"}], "timings": TIMINGS}, NOW)
    whole = answer.whole(lines, NOW, TIMES, context=[1, 2])
    assert (whole["response"], whole["thinking"], whole["done_reason"]) == ("yes", "hm", "length")
    assert whole["context"] == [1, 2]


def test_log_probabilities() -> None:
    one = {
        "token": "a",
        "logprob": -0.1,
        "bytes": [97],
        "id": 5,
        "top_logprobs": [{"token": "b", "logprob": -2, "bytes": [98]}],
    }
    given_event = event({"content": "a"})
    given_event["choices"][0]["logprobs"] = {"content": [one]}
    (line,) = Answer("a", CHAT).feed(given_event, NOW)
    assert line["logprobs"] == [{"token": "a", "logprob": -0.1, "bytes": [97]}]
    (line,) = Answer("a", CHAT, top_logprobs=1).feed(given_event, NOW)
    assert line["logprobs"][0]["top_logprobs"] == [{"token": "b", "logprob": -2, "bytes": [98]}]


def test_log_probabilities_of_tokens_without_text_are_not_lost() -> None:
    answer = Answer("a", CHAT)
    silent = event({"content": None})
    silent["choices"][0]["logprobs"] = {"content": [{"token": "<think>", "logprob": -1, "bytes": [60]}]}
    assert answer.feed(silent, NOW) == []
    (line,) = answer.feed(event({"content": "a"}), NOW)
    assert [one["token"] for one in line["logprobs"]] == ["<think>"]
    answer.feed(silent, NOW)
    assert [one["token"] for one in answer.done(NOW, TIMES)["logprobs"]] == ["<think>"]


def test_what_a_completion_and_an_infill_say() -> None:
    answer = Answer("a", GENERATE)
    (line,) = answer.feed({"choices": [{"text": "yes", "finish_reason": None}]}, NOW)
    assert (line["response"], answer.finished) == ("yes", False)
    answer.feed({"choices": [{"text": "", "finish_reason": "length"}]}, NOW)
    assert (answer.finished, answer.reason) == (True, "length")
    answer = Answer("a", GENERATE)
    (line,) = answer.feed({"content": "x", "stop": False}, NOW)
    assert (line["response"], answer.finished) == ("x", False)
    assert answer.feed({"content": "", "stop": True, "stop_type": "limit", "timings": TIMINGS}, NOW) == []
    assert (answer.finished, answer.reason, answer.tokens.prompt) == (True, "length", 7)


@given(st.text(max_size=9), st.sampled_from(["content", "reasoning_content"]), st.sampled_from([CHAT, GENERATE]))
def test_the_short_way_leads_to_the_same_lines(text: str, kind: str, shape: Any) -> None:
    name = 'a"\0\\'
    for told in (event({kind: text}), event({kind: text}, finish="stop"), event({kind: text, "role": "assistant"})):
        long = b"".join(dumps(line) + b"\n" for line in Answer(name, shape).feed(told, NOW))
        assert Answer(name, shape).lines(told, NOW) == long


def test_load_and_unload() -> None:
    assert loaded("a", GENERATE, "load", NOW) == {
        "model": "a",
        "created_at": created_at(NOW),
        "response": "",
        "done": True,
        "done_reason": "load",
    }


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=8), st.sampled_from([CHAT, GENERATE]))
def test_nothing_that_the_model_says_is_lost(pieces: list[tuple[str, str]], shape: Any) -> None:
    answer = Answer("a", shape)
    deltas = [{"content": text, "reasoning_content": thought} for text, thought in pieces]
    lines = [line for delta in deltas for line in answer.feed(event(delta), NOW)]
    whole = answer.whole(lines, NOW, TIMES)
    said = whole["message"] if shape is CHAT else whole
    assert said["content" if shape is CHAT else "response"] == "".join(text for text, _ in pieces)
    assert said.get("thinking", "") == "".join(thought for _, thought in pieces)
