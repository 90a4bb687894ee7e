"""Requests of the Responses API as chats: which items make which messages."""

from __future__ import annotations

from typing import Any

import pytest

from llamarunner.dialects.responses import asking
from llamarunner.errors import InvalidRequest

USER = {"role": "user", "content": "Q"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "R"}]}
CALLED = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def said(*items: Any, **document: Any) -> Any:
    return asking.chat(document, asking.items_of(list(items)))["messages"]


def thought(text: str) -> Any:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


def answer(text: str) -> Any:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


def test_what_belongs_to_one_answer_is_one_message() -> None:
    assert said(USER, thought("T"), answer("A"), CALL, {**CALL, "call_id": "d"}, RESULT, thought("U"), answer("B")) == [
        {"role": "user", "content": "Q"},
        {
            "role": "assistant",
            "content": "A",
            "reasoning_content": "T",
            "tool_calls": [*CALLED, {**CALLED[0], "id": "d"}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "R"},
        {"role": "assistant", "content": "B", "reasoning_content": "U"},
    ]


def test_two_answers_in_a_row_stay_two() -> None:
    assert [one["content"] for one in said(answer("A"), answer("B"), thought("T"))] == ["A", "B", ""]


def test_images_and_texts_are_parts() -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:image/png;base64,AA"}]
    assert said({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]


def test_what_stands_at_the_beginning_is_one_system_message() -> None:
    developer = {"role": "developer", "content": "D"}
    assert said(developer, USER, {"role": "system", "content": "late"}, instructions="I") == [
        {"role": "system", "content": "I\n\nD"},
        USER,
        {"role": "system", "content": "late"},
    ]


def test_fields_that_a_chat_has_pass_and_others_do_not() -> None:
    document = {"model": "m", "min_p": 0.1, "store": True, "metadata": {}, "top_logprobs": 0, "user": "u", "seed": 1}
    body = asking.chat(document, asking.items_of("x"))
    assert body.keys() == {"model", "min_p", "seed", "messages", "stream", "stream_options"}
    assert asking.chat({"include": [asking.LOGPROBS]}, asking.items_of("x"))["logprobs"] is True


@pytest.mark.parametrize(
    ("effort", "arguments"),
    [("none", {"enable_thinking": False}), ("minimal", {"enable_thinking": True, "reasoning_effort": "low"})],
)
def test_effort(effort: str, arguments: Any) -> None:
    body = asking.chat({"reasoning": {"effort": effort}}, asking.items_of("x"))
    assert body["chat_template_kwargs"] == arguments


def test_a_mistake_in_an_item_is_counted_from_the_requests_own() -> None:
    items = [*asking.items_of("before"), *asking.items_of([USER, {"type": "message", "role": "x"}])]
    with pytest.raises(InvalidRequest) as caught:
        asking.chat({}, items, 1)
    assert caught.value.param == "input[1].role"


def test_choices_and_forms() -> None:
    choice = {"type": "function", "name": "f"}
    body = asking.chat({"tool_choice": choice, "text": {"format": {"type": "json_object"}}}, asking.items_of("x"))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["response_format"] == {"type": "json_object"}
