"""Conversations of LM Studio's SDKs."""

from __future__ import annotations

from typing import Any

import pytest

from llamarunner.dialects.lmstudio import sdk_history
from llamarunner.errors import InvalidRequest


def picture(identifier: str, place: str) -> str:
    return f"data:{identifier}@{place}"


def message(role: str, *parts: object) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def made(*told: object, system: object = None) -> list[dict[str, Any]]:
    return sdk_history.messages({"messages": list(told)}, picture, system)


def test_texts_become_one() -> None:
    assert made(message("system", text("be ")), message("user", text("a"), text("b")), message("assistant")) == [
        {"role": "system", "content": "be "},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": ""},
    ]


def test_a_system_prompt_is_for_those_without_one() -> None:
    assert made(message("user", text("a")), system="be brief")[0] == {"role": "system", "content": "be brief"}
    assert len(made(message("system", text("mine")), system="be brief")) == 1
    assert made(message("user", text("a")), system="") == made(message("user", text("a")))


def test_pictures_are_data() -> None:
    file = {"type": "file", "name": "n", "identifier": "f", "sizeBytes": 1, "fileType": "image"}
    (one,) = made(message("user", text("look"), file))
    link = {"type": "image_url", "image_url": {"url": "data:f@history.messages[0].content[1].identifier"}}
    assert one["content"] == [text("look"), link]


def test_calls_and_results() -> None:
    requests = [
        {"type": "toolCallRequest", "toolCallRequest": {"id": "1", "name": "add", "arguments": {"a": "ü"}}},
        {"type": "toolCallRequest", "toolCallRequest": {"name": "now"}},
    ]
    results = [
        {"type": "toolCallResult", "content": "3", "toolCallId": "1"},
        {"type": "toolCallResult", "content": "4"},
    ]
    assistant, *tools = made(message("assistant", *requests), message("tool", *results))
    calls = [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in assistant["tool_calls"]]
    assert calls == [("1", "add", '{"a":"ü"}'), ("call-1", "now", "{}")]
    assert tools == [{"role": "tool", "content": "3", "tool_call_id": "1"}, {"role": "tool", "content": "4"}]


@pytest.mark.parametrize(
    ("told", "param"),
    [
        ("text", "messages[0].role"),
        (message("robot"), "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        (message("user", "text"), "messages[0].content"),
        (message("user", {"type": "text"}), "messages[0].content[0].text"),
        (message("user", {"type": "sound"}), "messages[0].content[0].type"),
        (message("user", {"type": "file", "fileType": "text/plain"}), "messages[0].content[0].fileType"),
        (message("user", {"type": "file"}), "messages[0].content[0].identifier"),
        (message("assistant", {"type": "toolCallRequest"}), "messages[0].content[0].toolCallRequest"),
        (message("assistant", {"type": "toolCallResult", "content": ""}), "messages[0].content[0].type"),
        (
            message("assistant", {"type": "toolCallRequest", "toolCallRequest": {}}),
            "messages[0].content[0].toolCallRequest.name",
        ),
        (message("tool", text("a")), "messages[0].content[0].type"),
        (message("tool", {"type": "toolCallResult"}), "messages[0].content[0].content"),
    ],
)
def test_mistakes_are_named(told: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        made(told)
    assert refused.value.param == f"history.{param}"


@pytest.mark.parametrize("history", [None, [], {}, {"messages": {}}])
def test_what_is_no_history(history: object) -> None:
    with pytest.raises(InvalidRequest, match=r"history\.messages"):
        sdk_history.messages(history, picture)


def test_a_text_to_complete_is_all_text_and_no_files() -> None:
    assert sdk_history.text_of({"messages": [message("user", text("a")), message("assistant", text("b"))]}) == "ab"
    with pytest.raises(InvalidRequest) as refused:
        sdk_history.text_of({"messages": [message("user", {"type": "file", "identifier": "f"})]})
    assert refused.value.param == "history.messages[0].content[0].identifier"
