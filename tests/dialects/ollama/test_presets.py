"""What a model brings along, before what a request says."""

from __future__ import annotations

from typing import Any

import pytest

from llamarunner.catalog.entry import NO_PRESET, Preset
from llamarunner.dialects.ollama import presets
from llamarunner.dialects.ollama.errors import WrongOption
from llamarunner.dialects.ollama.requests import ChatRequest, GenerateRequest, Message

HI = {"role": "user", "content": "hi"}
ASKED = {"role": "user", "content": "earlier"}
SYSTEM = {"role": "system", "content": "Be brief."}
PRESET = Preset("Be brief.", "", {"temperature": 0.5, "stop": ["x"], "num_predict": 7, "num_ctx": 64}, (ASKED,))
SAMPLED = {"temperature": 0.5, "stop": ["x"], "n_predict": 7}


def test_ollamas_own_requests() -> None:
    chat = presets.chat(ChatRequest(model="a", messages=[Message(role="user", content="hi")]), PRESET)
    assert [(one.role, one.content) for one in chat.messages] == [
        ("system", "Be brief."),
        ("user", "earlier"),
        ("user", "hi"),
    ]
    assert chat.options == PRESET.parameters
    own = presets.chat(ChatRequest(messages=[Message(role="system", content="mine")], options={"top_k": 1}), PRESET)
    assert [one.content for one in own.messages] == ["earlier", "mine"]
    assert own.options == {**PRESET.parameters, "top_k": 1}
    assert presets.chat(ChatRequest(model="a"), PRESET).messages == []
    assert presets.generate(GenerateRequest(prompt="hi"), PRESET).system == "Be brief."
    assert presets.generate(GenerateRequest(prompt="hi", system="mine"), PRESET).system == "mine"
    assert presets.generate(GenerateRequest(prompt="hi", raw=True), PRESET).system == ""


@pytest.mark.parametrize(
    ("path", "asked", "more"),
    [
        ("/v1/chat/completions", {"messages": [HI]}, {"messages": [SYSTEM, ASKED, HI], **SAMPLED}),
        ("/apply-template", {"messages": [HI]}, {"messages": [SYSTEM, ASKED, HI], **SAMPLED}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "developer", "content": "mine"}], "max_tokens": 9, "stop": "y", "temperature": 0},
            {"messages": [ASKED, {"role": "developer", "content": "mine"}]},
        ),
        ("/v1/chat/completions", {"messages": [HI], "temperature": None}, {"messages": [SYSTEM, ASKED, HI], **SAMPLED}),
        ("/v1/completions", {"prompt": "hi"}, SAMPLED),
        ("/infill", {"input_prefix": "hi"}, SAMPLED),
        ("/v1/responses", {"input": "hi"}, {"instructions": "Be brief.", "input": [ASKED, HI], **SAMPLED}),
        (
            "/v1/responses/input_tokens",
            {"input": [HI], "instructions": "mine", "max_output_tokens": 9},
            {"input": [ASKED, HI], "temperature": 0.5, "stop": ["x"]},
        ),
        (
            "/v1/messages",
            {"messages": [HI], "max_tokens": 9},
            {"system": "Be brief.", "messages": [ASKED, HI], "temperature": 0.5, "stop_sequences": ["x"]},
        ),
        (
            "/v1/messages",
            {"messages": [HI], "max_tokens": 9, "system": "mine", "stop_sequences": ["y"], "temperature": 1},
            {"messages": [ASKED, HI]},
        ),
        ("/v1/embeddings", {"input": "hi"}, {}),
        ("/tokenize", {"content": "hi"}, {}),
    ],
)  # fmt: skip
def test_what_is_passed_on(path: str, asked: dict[str, Any], more: dict[str, Any]) -> None:
    before = repr(asked)
    assert presets.passed_on(path, asked, PRESET) == {**asked, **more}
    assert presets.passed_on(path, asked, NO_PRESET) == asked
    assert repr(asked) == before


def test_what_an_assistant_said_before() -> None:
    said = Preset(messages=(ASKED, {"role": "assistant", "content": "yes"}, SYSTEM))
    begun = presets.passed_on("/v1/responses", {"input": "hi"}, said)["input"]
    content = [{"type": "output_text", "text": "yes"}]
    assert begun == [
        ASKED,
        {"type": "message", "role": "assistant", "status": "completed", "content": content},
        SYSTEM,
        HI,
    ]
    asked = presets.passed_on("/v1/messages", {"messages": [HI]}, said)["messages"]
    assert asked == [ASKED, {"role": "assistant", "content": "yes"}, HI], "Anthropic knows no other roles"


def test_a_message_that_is_none_is_passed_over() -> None:
    damaged = Preset(messages=({"role": 3}, ASKED))
    assert presets.passed_on("/v1/chat/completions", {"messages": [HI]}, damaged)["messages"] == [ASKED, HI]
    chat = presets.chat(ChatRequest(messages=[Message(role="user", content="hi")]), damaged)
    assert [one.content for one in chat.messages] == ["earlier", "hi"]


def test_an_answer_without_end_is_not_asked_for() -> None:
    assert presets.passed_on("/infill", {}, Preset(parameters={"num_predict": -1})) == {}


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(WrongOption, match="temperature"):
        presets.passed_on("/infill", {}, Preset(parameters={"temperature": "hot"}))
