"""Answers of models as LM Studio's SDKs read them. Whole predictions are in tests/server/test_sdk_predict.py."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from llamarunner.dialects.lmstudio.sdk_prediction import Prediction
from llamarunner.dialects.sse import DONE
from llamarunner.errors import BackendFailed

Json = dict[str, Any]


def prediction(**options: Any) -> Prediction:
    numbers = count(1)
    return Prediction(lambda: str(next(numbers)), **options)


def chunk(delta: Json | None = None, finish: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more})


def stats(one: Prediction, **facts: Any) -> Json:
    return one.stats(**{"first_token_seconds": 0.5, "seconds": 2.0, "cancelled": False, **facts})


def test_progress_only_rises() -> None:
    one = prediction()
    told = [
        one.take(json.dumps({"choices": [], "prompt_progress": {"total": 10, "cache": 2, "processed": done}}))
        for done in (2, 6, 4, 6, 10)
    ]
    assert [packet["progress"] for packets in told for packet in packets] == [0.2, 0.6, 1.0]
    assert told[1][0]["details"] == {
        "cachedTokenCount": 2,
        "totalPromptTokenCount": 10,
        "processedPromptTokenCount": 6,
        "unprocessedPromptTokenCount": 4,
    }


@pytest.mark.parametrize("progress", [None, {}, {"total": 0, "processed": 0}, {"total": "x", "processed": 1}])
def test_progress_that_says_nothing_is_not_told(progress: object) -> None:
    assert prediction().take(json.dumps({"choices": [], "prompt_progress": progress})) == []


def test_texts_of_completions_are_read_too() -> None:
    one = prediction()
    (packet,) = one.take('{"choices": [{"index": 0, "text": "Hel", "finish_reason": null}]}')
    assert packet["fragment"]["content"] == "Hel"
    assert one.take('{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}') == []
    assert one.complete


def test_thoughts_without_an_answer_are_ended() -> None:
    one = prediction(tags=("[", "]"))
    packets = one.take(chunk({"reasoning_content": "hm"})) + one.take(chunk(finish="length"))
    said = [(packet["fragment"]["content"], packet["fragment"]["isStructural"]) for packet in packets]
    assert said == [("[", True), ("hm", False), ("]", True)]


def test_thoughts_may_be_left_out() -> None:
    one = prediction(tags=None)
    packets = one.take(chunk({"reasoning_content": "hm"})) + one.take(chunk({"content": "{}"}, "stop"))
    assert [packet["fragment"]["content"] for packet in packets] == ["{}"]


def test_arguments_that_are_no_object_are_a_failed_call() -> None:
    one = prediction()
    one.take(chunk({"tool_calls": [{"index": 0, "function": {"name": "add", "arguments": "[1"}}]}))
    (packet,) = one.take(chunk(finish="tool_calls"))
    assert (packet["type"], "add" in packet["error"]["title"]) == ("toolCallGenerationFailed", True)
    assert packet["rawContent"] == '{"name":"add","arguments":"[1"}'


def test_the_end_by_what_was_told() -> None:
    one = prediction()
    assert not one.complete
    one.take(DONE)
    assert one.complete
    one.take(chunk(usage={"prompt_tokens": 3, "completion_tokens": 4}, timings={"predicted_per_second": 8.5}))
    assert stats(one) == {
        "stopReason": "eosFound",
        "tokensPerSecond": 8.5,
        "timeToFirstTokenSec": 0.5,
        "totalTimeSec": 2.0,
        "promptTokensCount": 3,
        "predictedTokensCount": 4,
        "totalTokensCount": 7,
    }


@pytest.mark.parametrize(
    ("finish", "verbose", "reason"),
    [
        ("stop", {}, "eosFound"),
        ("stop", {"stop_type": "word", "stopping_word": "END"}, "stopStringFound"),
        ("length", {}, "maxPredictedTokensReached"),
        ("length", {"stop_type": "limit", "truncated": True}, "contextLengthReached"),
        ("tool_calls", {"stop_type": "eos"}, "toolCalls"),
    ],
)
def test_why_it_ended(finish: str, verbose: Json, reason: str) -> None:
    one = prediction()
    one.take(chunk(finish=finish, __verbose=verbose))
    assert stats(one)["stopReason"] == reason
    assert stats(one).get("stopString") == verbose.get("stopping_word")
    assert stats(one, cancelled=True)["stopReason"] == "userStopped"


def test_what_is_not_known_is_not_told() -> None:
    assert stats(prediction(), first_token_seconds=None, cancelled=True) == {
        "stopReason": "userStopped",
        "totalTimeSec": 2.0,
    }


@pytest.mark.parametrize("data", ["nonsense", "[]"])
def test_what_is_no_event(data: str) -> None:
    with pytest.raises(BackendFailed):
        prediction().take(data)
