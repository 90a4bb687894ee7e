"""The body of a chat: what may be in it, in which forms, and what a model is asked for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner.dialects.lmstudio import chat_request
from llamarunner.dialects.lmstudio.chat_request import ChatRequest
from llamarunner.dialects.lmstudio.errors import InvalidValue
from llamarunner.dialects.lmstudio.strict import validated
from llamarunner.errors import InvalidRequest

IMAGE = {"type": "image", "data_url": "data:image/png;base64,AAAA"}


def read(**document: Any) -> ChatRequest:
    return validated(ChatRequest, json.dumps({"model": "m", "input": "x", **document}).encode())


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ("hello", "hello"),
        ([{"type": "text", "content": "hello"}], "hello"),
        ([{"type": "message", "content": "hello"}], "hello"),
        (
            [{"type": "text", "content": "see"}, IMAGE],
            [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": IMAGE["data_url"]}}],
        ),
    ],
    ids=["a text", "a text item", "a message item", "an image"],
)
def test_inputs(given: Any, content: Any) -> None:
    asked = read(input=given)
    assert chat_request.user_message(asked) == {"role": "user", "content": content}
    assert asked.sees == isinstance(content, list)


def test_integrations_have_three_forms() -> None:
    headers = {"X-Key": "secret"}
    server = {
        "type": "ephemeral_mcp",
        "server_label": "l",
        "server_url": "u",
        "allowed_tools": ["t"],
        "headers": headers,
    }
    short, plugin, ephemeral = read(integrations=["mcp/a", {"type": "plugin", "id": "mcp/a"}, server]).integrations
    assert short == plugin
    assert (ephemeral.allowed_tools, ephemeral.headers) == (["t"], headers)
    assert "secret" not in repr(ephemeral)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": [{"type": "text", "content": "x", "data_url": IMAGE["data_url"]}]}, "input[0]"),
        ({"input": [{**IMAGE, "data_url": "data:text/html;base64,AAAA"}]}, "input[0].data_url"),
        ({"integrations": [{"type": "ephemeral_mcp", "server_label": "l"}]}, "integrations[0]"),
        ({"integrations": [{"type": "plugin", "id": "x", "server_url": "u"}]}, "integrations[0]"),
        ({"integrations": [5]}, "integrations[0]"),
        ({"input": [{"type": "audio", "data": "x"}]}, "input[0].type"),
        ({"integrations": [{"type": "mcp", "url": "u"}]}, "integrations[0].type"),
        ({"min_p": -0.1}, "min_p"),
        ({"repeat_penalty": "1"}, "repeat_penalty"),
        ({"context_length": 1.5}, "context_length"),
        ({"store": 1}, "store"),
    ],
    ids=str,
)
def test_mistakes_name_their_field(wrong: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**wrong)
    assert caught.value.param == param


def test_a_chat_has_one_system_message() -> None:
    said = [{"role": "user", "content": "x"}]
    assert chat_request.messages(None, said) == said
    assert chat_request.messages("S", said) == [{"role": "system", "content": "S"}, *said]


@pytest.mark.parametrize(
    ("setting", "arguments"),
    [
        ("off", {"enable_thinking": False}),
        ("on", {"enable_thinking": True}),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}),
    ],
)
def test_reasoning_is_told_to_the_template(setting: str, arguments: Any) -> None:
    assert chat_request.sampling(read(reasoning=setting))["chat_template_kwargs"] == arguments
    assert "chat_template_kwargs" not in chat_request.sampling(read())


def test_a_model_that_cannot_reason_takes_no_setting() -> None:
    chat_request.check_reasoning("m", None, ())
    chat_request.check_reasoning("m", "on", ("off", "on"))
    with pytest.raises(InvalidValue, match="Supported settings: none"):
        chat_request.check_reasoning("m", "on", ())
