"""One answer of a model: what is read from its stream, and the messages that it leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner.dialects import chat_turn
from llamarunner.dialects.chat_turn import MOST_CALLS, Turn
from llamarunner.dialects.sse import DONE
from llamarunner.errors import BackendFailed


def heard(*deltas: Any, first: int = 0) -> Turn:
    turn = Turn(first)
    for delta in deltas:
        turn.take(json.dumps({"choices": [{"index": 0, "delta": delta}]}))
    turn.take(DONE)
    return turn


def call(name: str = "", arguments: str = "", index: int = 0) -> Any:
    return {"tool_calls": [{"index": index, "function": {"name": name, "arguments": arguments}}]}


def test_texts_are_told_as_they_come_and_put_together() -> None:
    turn = Turn()
    new = [
        turn.take(json.dumps({"choices": [{"delta": one}]})) for one in ({"reasoning_content": "a"}, {"content": "b"})
    ]
    assert new == [{"reasoning_content": "a"}, {"content": "b"}]
    assert (turn.spoken, turn.thought_tokens, turn.reading.complete) == (True, 1, False)
    assert turn.message() == {"role": "assistant", "content": "b", "reasoning_content": "a"}


def test_calls_come_in_pieces_and_have_ids_that_go_on() -> None:
    turn = heard(call("add"), call("", '{"a":'), call("", " 1}"), call("sub", "{}", 1), first=41)
    assert [(one.id, one.name, one.arguments) for one in turn.calls] == [
        ("000000041", "add", {"a": 1}),
        ("000000042", "sub", {}),
    ]
    message = turn.message()
    assert chat_turn.calls_in([message]) == 2
    assert message["tool_calls"][0] == {
        "id": "000000041",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a":1}'},
    }
    assert "tool_calls" not in turn.message(with_calls=False)


@pytest.mark.parametrize("arguments", ['{"a": 1', "[]", '"x"', "NaN", '{"a": NaN}', "[" * 5000])
def test_arguments_that_are_no_object(arguments: str) -> None:
    (found,) = heard(call("add", arguments)).calls
    assert found.arguments is None
    assert heard(call("add", arguments)).message()["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_call_without_arguments_has_none() -> None:
    (found,) = heard(call("add")).calls
    assert found.arguments == {}


def test_oddities_are_passed_over() -> None:
    turn = heard({"tool_calls": ["x", {"function": 5}, {"index": 1}]}, {"content": 5}, {"tool_calls": {"a": 1}})
    assert [one.name for one in turn.calls] == ["", ""]
    assert turn.message(with_calls=False)["content"] == ""
    assert len(heard(*(call("x", "", number) for number in range(100))).calls) == MOST_CALLS
    with pytest.raises(BackendFailed):
        heard().take("nonsense")


def test_what_a_model_reads_of_an_output() -> None:
    assert chat_turn.plain('[{"type":"text","text":"a"},{"type":"text","text":"b"}]') == "a\nb"
    for other in ('[{"type":"image","data":"x"}]', "[]", "{}", "nonsense", '[{"type":"text","text":"a"},{}]'):
        assert chat_turn.plain(other) == other
