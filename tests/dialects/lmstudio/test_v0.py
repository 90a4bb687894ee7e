"""Answers of REST v0, from what llama.cpp really says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner.dialects.lmstudio.v0 import ModelInfo, Runtime, Telling, stop_reason
from llamarunner.dialects.usage import Usage
from llamarunner.errors import ServerError

INFO = ModelInfo("granite", "Q4_K_M", "gguf", 4096)
RUNTIME = Runtime("llama.cpp-linux-x86_64", "1.3.0", ["gguf"])
TIMINGS = {
    "cache_n": 25,
    "prompt_n": 1,
    "prompt_ms": 111.0,
    "predicted_n": 3,
    "predicted_ms": 954.0,
    "predicted_per_second": 51.4,
}
EXTRAS = {
    "model_info": {"arch": "granite", "quant": "Q4_K_M", "format": "gguf", "context_length": 4096},
    "runtime": {"name": "llama.cpp-linux-x86_64", "version": "1.3.0", "supported_formats": ["gguf"]},
}


def stats(reason: str) -> dict[str, object]:
    return {"tokens_per_second": 51.4, "time_to_first_token": 0.111, "generation_time": 0.954, "stop_reason": reason}


def chunk(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def told(*chunks: dict[str, Any]) -> tuple[list[Any], Telling]:
    """All that is told of a stream, and by whom."""
    telling = Telling()
    lines = [line for one in chunks for line in telling.chunk(json.dumps(one))]
    return [json.loads(line) for line in [*lines, *telling.last(INFO, RUNTIME)]], telling


def test_a_whole_answer_has_all_that_lm_studio_tells_and_nothing_of_llama_cpps() -> None:
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 26, "completion_tokens": 3},
        "__verbose": {"stop_type": "eos", "prompt": "secret"},
        "timings": TIMINGS,
    }
    telling = Telling()
    document = json.loads(telling.whole(dict(answer), INFO, RUNTIME))
    kept = {key: value for key, value in answer.items() if key not in ("timings", "__verbose")}
    assert document == {**kept, "stats": stats("eosFound"), **EXTRAS}
    assert telling.tokens == Usage(26, 3, 51.4)


def test_a_stream_passes_at_once_but_for_what_may_be_its_last_chunk() -> None:
    telling = Telling()
    first = chunk("Hel")
    assert [json.loads(line) for line in telling.chunk(json.dumps(first))] == [first]
    assert telling.chunk(json.dumps(chunk(reason="stop", timings=TIMINGS))) == []
    (last,) = telling.last(INFO, RUNTIME)
    assert json.loads(last) == {**chunk(reason="stop"), "stats": stats("eosFound"), **EXTRAS}


def test_the_extras_ride_on_the_chunk_with_the_usage_if_there_is_one() -> None:
    usage = {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 26, "completion_tokens": 3}}
    end = chunk(reason="length", __verbose={"stop_type": "limit", "truncated": False})
    lines, telling = told(chunk("a"), end, {**usage, "timings": TIMINGS})
    assert lines == [
        chunk("a"),
        chunk(reason="length"),
        {**usage, "stats": stats("maxPredictedTokensReached"), **EXTRAS},
    ]
    assert telling.tokens == Usage(26, 3, 51.4)


def test_of_several_choices_every_end_is_told() -> None:
    lines, _ = told(chunk("a"), chunk(reason="stop"), chunk("b"), chunk(reason="length"))
    assert [line["choices"][0]["finish_reason"] for line in lines] == [None, "stop", None, "length"]
    assert ["stats" in line for line in lines] == [False, False, False, True]


def test_what_has_no_choice_may_be_the_last_even_where_no_end_was_told() -> None:
    lines, _ = told(chunk("a"), {"choices": [], "timings": TIMINGS})
    assert lines == [chunk("a"), {"choices": [], "stats": stats("eosFound"), **EXTRAS}]


def test_what_another_runtime_does_not_measure_is_null() -> None:
    lines, telling = told(chunk("a"), chunk(reason="stop"))
    assert lines[-1]["stats"] == {
        "tokens_per_second": None,
        "time_to_first_token": None,
        "generation_time": None,
        "stop_reason": "eosFound",
    }
    assert telling.tokens == Usage()


def test_an_empty_stream_has_no_last_chunk() -> None:
    assert told()[0] == []


def test_a_draft_model_is_told_of() -> None:
    lines, _ = told(chunk(reason="stop", timings={**TIMINGS, "draft_n": 10, "draft_n_accepted": 7}))
    assert lines[-1]["stats"] == {
        **stats("eosFound"),
        "total_draft_tokens_count": 10,
        "accepted_draft_tokens_count": 7,
        "rejected_draft_tokens_count": 3,
        "ignored_draft_tokens_count": 0,
    }


def test_a_completion_has_an_id_of_its_own_kind() -> None:
    answer = {"id": "chatcmpl-abc", "object": "text_completion", "choices": [{"text": "x", "finish_reason": "stop"}]}
    assert json.loads(Telling().whole(answer, INFO, RUNTIME))["id"] == "cmpl-abc"


@pytest.mark.parametrize(
    ("finish", "verbose", "reason"),
    [
        ("stop", {"stop_type": "eos"}, "eosFound"),
        ("stop", {"stop_type": "word", "stopping_word": "x"}, "stopStringFound"),
        ("length", {"stop_type": "limit", "truncated": False}, "maxPredictedTokensReached"),
        ("length", {"stop_type": "limit", "truncated": True}, "contextLengthReached"),
        ("tool_calls", {"stop_type": "eos"}, "toolCalls"),
        ("stop", {}, "eosFound"),
        ("length", {}, "maxPredictedTokensReached"),
        ("tool_calls", {}, "toolCalls"),
        (None, {"stop_type": "none"}, "eosFound"),
        (None, {}, "eosFound"),
    ],
)
def test_why_it_ended(finish: str | None, verbose: dict[str, Any], reason: str) -> None:
    assert stop_reason(finish, verbose) == reason


@pytest.mark.parametrize(
    ("data", "words"),
    [("[]", "no JSON object"), ("nonsense", "no JSON object"), ('{"error": {"code": 500, "message": "oh"}}', "oh")],
)
def test_what_is_no_chunk_is_an_error(data: str, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        Telling().chunk(data)
