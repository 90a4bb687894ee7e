"""What is refused before llama.cpp sees it: chats without messages, and constraints that it would not survive."""

from __future__ import annotations

from typing import Any

import pytest

from llamarunner.dialects.chat import ROLES, check_messages
from llamarunner.dialects.constraints import MAX_GRAMMAR, MAX_GRAMMAR_DEPTH, MAX_SCHEMA_NODES, check_constraints
from llamarunner.errors import InvalidRequest


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("x", "messages"),
        ([{"role": "user"}, 7], "messages[1]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "alien"}], "messages[0].role"),
        ([{"role": ["user"]}], "messages[0].role"),
    ],
)
def test_wrong_messages_are_refused_with_the_field(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_messages({"messages": messages})
    assert refusal.value.param == param


def test_all_known_roles_pass() -> None:
    check_messages({"messages": [{"role": role} for role in ROLES]})


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"grammar": "root ::= " + "(" * (MAX_GRAMMAR_DEPTH + 1)}, "grammar"),
        ({"grammar": "x" * (MAX_GRAMMAR + 1)}, "grammar"),
        ({"json_schema": {"enum": ["x"] * MAX_SCHEMA_NODES}}, "json_schema"),
        ({"response_format": {"json_schema": {"schema": {"enum": [1] * MAX_SCHEMA_NODES}}}}, "response_format"),
        ({"tools": [{"function": {"parameters": {"enum": [1] * MAX_SCHEMA_NODES}}}]}, "tools"),
        ({"grammar": 'root ::= "a"{5,2}'}, "grammar"),
        ({"json_schema": {"type": "array", "minItems": 5, "maxItems": 2}}, "json_schema"),
        ({"response_format": {"schema": {"anyOf": [{"minLength": 5, "maxLength": 2}]}}}, "response_format"),
        ({"tools": [{"function": {"parameters": {"properties": {"n": {"minimum": 2.5, "maximum": 1}}}}}]}, "tools"),
        ({"text": {"format": {"schema": {"$defs": {"a": {"pattern": "^a{ 3 , 1 }$"}}}}}}, "text"),
    ],
)
def test_constraints_that_llama_cpp_would_not_survive_are_refused(document: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_constraints(document)
    assert refusal.value.param == param


def test_ordinary_constraints_pass() -> None:
    bounded = {
        "minItems": 2,
        "maxItems": 2,
        "minLength": 0,
        "pattern": "^[a-z]{2,3}x{1,}$",
        "properties": {"minItems": {}},
    }
    check_constraints({"json_schema": bounded, "grammar": 'root ::= "a"{2,5} "b"{3}'})
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(500)}}
    check_constraints({"grammar": 'root ::= ("a" | ("b" "c"))*', "response_format": {"schema": schema}, "tools": None})
