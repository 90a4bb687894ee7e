"""The messages of the websocket, and their documents."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.errors import InvalidRequest, LlamaRunnerError, RateLimited
from llamarunner.server import channel_messages
from llamarunner.server.channel_messages import FROM_CLIENT, FROM_SERVER, parse, read, refusal, schema

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA_FILE = DOCS / "websocket.schema.json"
EXAMPLES: list[dict[str, Any]] = [
    json.loads(block) for block in re.findall(r"```json\n(.*?)```", (DOCS / "websocket.md").read_text(), re.DOTALL)
]


def valid(document: object, group: str) -> bool:
    """Whether a document is a message of a group, by the schema."""
    whole = schema()
    return jsonschema.Draft202012Validator({**whole, "anyOf": [{"$ref": f"#/$defs/{group}"}]}).is_valid(document)


def test_the_schema_in_the_docs_is_that_of_the_code(request: pytest.FixtureRequest) -> None:
    """`pytest --update-golden` writes it anew."""
    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--update-golden"):
        SCHEMA_FILE.write_text(text)
    assert SCHEMA_FILE.read_text() == text
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_type_of_message_has_a_schema_and_an_example() -> None:
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    types = set()
    for kind in (*FROM_CLIENT, *FROM_SERVER):
        field = definitions[kind.__name__]["properties"]["type"]
        types |= set(field.get("enum", [field.get("const")]))
        assert "type" in definitions[kind.__name__]["required"]
    assert {example["type"] for example in EXAMPLES} == types


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["type"]))
def test_every_example_is_a_valid_message_of_its_side(example: dict[str, Any]) -> None:
    sides = [group for group in ("FromClient", "FromServer") if valid(example, group)]
    assert len(sides) == 1
    if sides == ["FromClient"]:
        assert parse(example).type == example["type"]
    else:
        fitting = [kind for kind in FROM_SERVER if valid(example, kind.__name__)]
        assert [json.loads(kind.model_validate(example).text) for kind in fitting] == [example]


BITS = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2000) | st.text(max_size=8) | st.sampled_from(["model.*", "ping"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["id", "model", "message", "messages", "options", "events", "logs", "tail", "x"]
TYPES = st.sampled_from([kind.__name__ for kind in FROM_CLIENT]) | st.sampled_from(
    ["chat_message", "cancel", "ping", "subscribe", "unsubscribe"]
)


@given(st.fixed_dictionaries({"type": TYPES}), st.dictionaries(st.sampled_from(FIELDS), BITS, max_size=4))
def test_the_schema_and_the_server_agree_about_what_is_valid(kind: dict[str, Any], fields: dict[str, Any]) -> None:
    document = {**kind, **fields}
    if valid(document, "FromClient"):
        assert parse(document).type == document["type"]
    else:
        with pytest.raises(InvalidRequest) as caught:
            parse(document)
        assert caught.value.param


@given(st.text(max_size=50))
def test_whatever_a_text_is_it_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(read(text), dict)


def test_an_unreadable_message_is_not_called_a_request_body() -> None:
    for text in ("", "{", "[]", '{"a": 1e999}', "[" * 100):
        with pytest.raises(InvalidRequest) as caught:
            read(text)
        assert "body" not in caught.value.message


@pytest.mark.parametrize("error", [InvalidRequest("no", param="x"), RateLimited("wait", retry_after=3)])
def test_errors_have_the_shape_of_all_our_errors(error: LlamaRunnerError) -> None:
    said = json.loads(refusal(error, "a").text)
    assert said == {
        "type": "error",
        "id": "a",
        "error": {"code": error.code, "message": error.message, "type": error.type, "param": error.param},
        "retry_after": error.retry_after,
    }
    assert valid(said, "FromServer")


def test_nothing_of_a_message_is_lost_that_is_null_inside() -> None:
    event = channel_messages.EventMessage(type="event", event="x", timestamp="t", data={"model_id": None, "a": [None]})
    assert json.loads(event.text)["data"] == {"model_id": None, "a": [None]}


@pytest.mark.parametrize(
    "document",
    [
        {"type": "ping", **{f"f{number}": 0 for number in range(190_000)}},
        {"type": "chat_message", "messages": [0] * 190_000},
        {"type": "subscribe", "events": [0] * 190_000},
        {"type": "unsubscribe", "logs": [""] * 190_000},
    ],
)
def test_many_faults_take_no_longer_than_one(document: dict[str, object]) -> None:
    began = time.thread_time()
    with contextlib.suppress(InvalidRequest):
        parse(document)
    assert time.thread_time() < began + 0.2
