"""How bodies are read, and how they are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llamarunner.dialects.ollama.requests import ChatRequest, EmbedRequest, GenerateRequest, ShowRequest, read
from llamarunner.dialects.strict_json import dumps
from llamarunner.errors import InvalidRequest

MESSAGE = {"role": "user", "content": "hello"}


def test_defaults_are_ollamas() -> None:
    request = read(ChatRequest, b'{"model": "a"}')
    assert (request.stream, request.truncate, request.think, request.messages) == (True, True, None, [])


def test_keys_match_in_any_case_and_null_is_not_given() -> None:
    body = dumps({"Model": "a", "MESSAGES": [{"Role": "user", "content": None}], "stream": None, "tools": None, "x": 1})
    request = read(ChatRequest, body)
    assert request.model == "a"
    assert request.stream
    assert request.messages[0].role == "user"
    assert request.messages[0].content == ""


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (ChatRequest, b"", "missing request body"),
        (ChatRequest, b" \n", "missing request body"),
        (ChatRequest, b"[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        (ChatRequest, {"messages": "x"}, "string into Go struct field ChatRequest.messages of type []api.Message"),
        (ChatRequest, {"messages": [{"content": []}]}, "field ChatRequest.messages.content of type string"),
        (ChatRequest, {"model": 3}, "number into Go struct field ChatRequest.model of type string"),
        (ChatRequest, {"stream": "yes"}, "string into Go struct field ChatRequest.stream of type bool"),
        (
            ChatRequest,
            {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            "field ChatRequest.messages.tool_calls.function.arguments of type api.ToolCallFunctionArguments",
        ),
        (ChatRequest, {"think": "very"}, 'value: "very" (must be "high", "medium", "low", "max", true, or false)'),
        (ChatRequest, {"think": 3}, 'must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
        (ChatRequest, {"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        (GenerateRequest, {"images": ["data:image/png;base64,AA"]}, "illegal base64 data at input byte 4"),
        (GenerateRequest, {"context": [1, "a"]}, "string into Go struct field GenerateRequest.context of type []int"),
        (EmbedRequest, {"dimensions": "a"}, "string into Go struct field EmbedRequest.dimensions of type int"),
    ],
)  # fmt: skip
def test_refusals(kind: type, body: object, words: str) -> None:
    raw = body if isinstance(body, bytes) else dumps(body)
    with pytest.raises(InvalidRequest) as refused:
        read(kind, raw)
    assert refused.value.message.endswith(words)


@pytest.mark.parametrize("field", ["messages", "tools"])
def test_only_the_first_fault_of_a_list_is_looked_for(field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(ChatRequest, dumps({field: [0] * 1000}))
    cause = refused.value.__context__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() == 1


def test_the_older_name_of_a_model_is_known() -> None:
    assert read(ShowRequest, b'{"name": "a"}').named == "a"
    assert read(ShowRequest, b'{"name": "a", "model": "b"}').named == "b"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 30) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from(["model", "messages", "tools", "think", "options", "stream", "images", "context", "role"])


@given(st.dictionaries(_FIELDS, _JSON, max_size=5), st.sampled_from([ChatRequest, GenerateRequest]))
def test_any_document_is_read_or_refused(document: dict[str, object], kind: type) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(read(kind, dumps(document)), kind)
