"""The events of a chat: their order, whatever happens, and the document that remains. All of it is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamarunner.dialects.lmstudio.chat_events import Stats, Telling, WhatWasWrong, document, framed
from llamarunner.errors import BackendFailed

OWN = {"type": "plugin", "plugin_id": "mcp/sums"}
STATS = Stats(3, 2, 0, 1.5, 0.25)


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_a_whole_transcript_byte_for_byte() -> None:
    telling = Telling("m:2")
    telling.begin_round()
    told = telling.prompt(0.5) + telling.said({"reasoning_content": "Hm"})
    told += telling.calling("add", OWN) + telling.called("add", {"a": None}, OWN)
    told += telling.answered("add", {"a": None}, "[]", OWN)
    told += telling.not_a_call("No.", WhatWasWrong("invalid_name", "sub"))
    told += telling.end(STATS, "resp_1")
    own = '"provider_info":{"type":"plugin","plugin_id":"mcp/sums"}'
    stats = (
        '"stats":{"input_tokens":3,"total_output_tokens":2,"reasoning_output_tokens":0,"tokens_per_second":1.5,'
        '"time_to_first_token_seconds":0.25}'
    )
    items = (
        '{"type":"reasoning","content":"Hm"},'
        f'{{"type":"tool_call","tool":"add","arguments":{{"a":null}},"output":"[]",{own}}},'
        '{"type":"invalid_tool_call","reason":"No.","metadata":{"type":"invalid_name","tool_name":"sub"}}'
    )
    lines = [
        '{"type":"chat.start","model_instance_id":"m:2"}',
        '{"type":"prompt_processing.start"}',
        '{"type":"prompt_processing.progress","progress":0.5}',
        '{"type":"prompt_processing.progress","progress":1.0}',
        '{"type":"prompt_processing.end"}',
        '{"type":"reasoning.start"}',
        '{"type":"reasoning.delta","content":"Hm"}',
        '{"type":"reasoning.end"}',
        f'{{"type":"tool_call.start","tool":"add",{own}}}',
        f'{{"type":"tool_call.arguments","tool":"add","arguments":{{"a":null}},{own}}}',
        f'{{"type":"tool_call.success","tool":"add","arguments":{{"a":null}},{own},"output":"[]"}}',
        '{"type":"tool_call.failure","reason":"No.","metadata":{"type":"invalid_name","tool_name":"sub"}}',
        f'{{"type":"chat.end","result":{{"model_instance_id":"m:2","output":[{items}],{stats},"response_id":"resp_1"}}}}',
    ]
    names = [line.split('"')[3] for line in lines]
    expected = "".join(f"event: {name}\ndata: {line}\n\n" for name, line in zip(names, lines, strict=True))
    assert framed(told).decode() == expected


def test_a_load_is_told_once_and_only_goes_up() -> None:
    telling = Telling("m")
    told = [*telling.loading(None), *telling.loading(0.5), *telling.loading(0.5), *telling.loading(0.2)]
    told += telling.loaded(1.23456)
    assert [(one["type"], one.get("progress")) for one in told] == [
        ("chat.start", None),
        ("model_load.start", None),
        ("model_load.progress", 0.5),
        ("model_load.progress", 1.0),
        ("model_load.end", None),
    ]
    assert told[-1]["load_time_seconds"] == 1.235
    assert telling.loaded(1.0) == [], "it was not loading"


def test_the_prompt_is_told_once_a_round_and_only_goes_up() -> None:
    telling = Telling("m")
    for _ in range(2):
        telling.begin_round()
        told = telling.prompt(0.0) + telling.prompt(0.7) + telling.prompt(0.3) + telling.prompt(1.0)
        told += telling.said({"content": "x"}) + telling.prompt(1.0) + telling.pause()
        assert [one["progress"] for one in told if one["type"] == "prompt_processing.progress"] == [0.0, 0.7, 1.0]
        assert kinds(told).count("prompt_processing.start") == kinds(told).count("prompt_processing.end") == 1


def test_blocks_do_not_overlap() -> None:
    telling = Telling("m")
    telling.begin_round()
    told = telling.said({"reasoning_content": "a", "content": "b"}) + telling.said({"content": "c"})
    told += telling.said({"reasoning_content": "d"}) + telling.end(STATS, None)
    assert kinds(told)[4:-1] == [
        *("reasoning.start", "reasoning.delta", "reasoning.end"),
        *("message.start", "message.delta", "message.delta", "message.end"),
        *("reasoning.start", "reasoning.delta", "reasoning.end"),
    ]
    assert [(one["type"], one["content"]) for one in told[-1]["result"]["output"]] == [
        ("reasoning", "a"),
        ("message", "bc"),
        ("reasoning", "d"),
    ]


def test_a_failure_closes_what_is_open_and_the_end_follows() -> None:
    telling = Telling("m")
    telling.begin_round()
    telling.said({"content": "x"})
    told = telling.failed(BackendFailed("Gone.")) + telling.end(STATS, None)
    assert kinds(told) == ["message.end", "error", "chat.end"]
    assert told[1]["error"] == {"message": "Gone.", "type": "internal_error"}
    assert kinds(Telling("m").failed(BackendFailed("Gone."))) == ["chat.start", "error"]


def test_only_a_load_and_a_kept_chat_are_in_the_document() -> None:
    telling = Telling("m")
    bare = document(telling.answer(STATS, None))
    assert bare.keys() == {"model_instance_id", "output", "stats"}
    full = document(telling.answer(Stats(model_load_time_seconds=2.0), "resp_1"))
    assert (full["stats"]["model_load_time_seconds"], full["response_id"]) == (2.0, "resp_1")
