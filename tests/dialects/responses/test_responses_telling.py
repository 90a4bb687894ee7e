"""A response from the stream of a chat: its events and its document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner.dialects.responses.telling import Telling
from llamarunner.errors import BackendFailed

ID = "resp_" + "0" * 48


def chunk(delta: Any, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, **more}]})


def call(arguments: str, index: int = 0, name: str = "") -> Any:
    return {"tool_calls": [{"index": index, "function": {"name": name, "arguments": arguments}}]}


def told(*chunks: str, **asked: Any) -> list[Any]:
    telling = Telling(ID, asked, "m", 1)
    events = [event for one in chunks for event in telling.take(one)] + telling.end(2)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_an_answer_that_was_cut_is_incomplete() -> None:
    events = told(chunk({"content": "x"}), chunk({}, finish_reason="length"), max_output_tokens=1)
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"


def test_items_have_their_own_index_and_id() -> None:
    chunks = [chunk(call("{", 0, "f")), chunk(call("}")), chunk(call("{}", 1, "g")), chunk({"content": "x"})]
    events = told(*chunks)
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [(one["output_index"], one["item"]["type"]) for one in done] == [
        (0, "function_call"),
        (1, "function_call"),
        (2, "message"),
    ]
    assert [one["item"]["arguments"] for one in done[:2]] == ["{}", "{}"]
    assert len({one["item"]["id"] for one in done} | {one["item"]["call_id"] for one in done[:2]}) == 5


def test_logprobs_come_with_their_text() -> None:
    logprob = {"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}
    events = told(chunk({"content": "x"}, logprobs={"content": [logprob]}))
    (delta,) = [event for event in events if event["type"] == "response.output_text.delta"]
    assert delta["logprobs"] == [logprob]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [logprob]


def test_the_document_repeats_what_was_asked() -> None:
    asked = {
        "instructions": "I",
        "temperature": 0,
        "tools": [{"type": "function"}],
        "store": False,
        "metadata": {"a": "b"},
    }
    response = told(chunk({"content": "x"}), **asked)[-1]["response"]
    assert {name: response[name] for name in asked} == asked
    assert (response["created_at"], response["completed_at"], response["model"]) == (1, 2, "m")


def test_tokens_are_counted() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    last = json.dumps({"choices": [], "usage": usage})
    response = told(chunk({"reasoning_content": "a"}), chunk({"content": "b"}), last)[-1]["response"]
    assert response["usage"] == {
        "input_tokens": 9,
        "output_tokens": 3,
        "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 1},
    }


def test_nonsense_is_the_models_failure() -> None:
    with pytest.raises(BackendFailed):
        Telling(ID, {}, "m", 1).take("nonsense")
