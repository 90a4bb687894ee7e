from __future__ import annotations

import time
from typing import Any

import pytest

from llamarunner.toolbox import Tool, complaint

ADD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "unit": {"type": ["string", "null"], "enum": ["cm", None]},
        "any": {"anyOf": [{"type": "string"}]},
    },
    "required": ["a"],
    "additionalProperties": False,
}


def said(schema: dict[str, Any], arguments: dict[str, object]) -> str | None:
    return complaint(Tool("add", "", schema, {}), arguments)


@pytest.mark.parametrize(
    "arguments", [{"a": 1}, {"a": 1.0}, {"a": 1, "unit": "cm"}, {"a": 1, "unit": None}, {"a": 1, "any": 5}]
)
def test_arguments_that_seem_right(arguments: dict[str, object]) -> None:
    assert said(ADD, arguments) is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "'a' is a required property"),
        ({"a": "1"}, "'a': '1' is not of type 'integer'"),
        ({"a": 1, "unit": "mm"}, "'unit': 'mm' is not one of"),
        ({"a": 1, "b": 2}, "'b' was unexpected"),
    ],
    ids=["missing", "type", "enum", "unknown"],
)
def test_arguments_that_are_wrong(arguments: dict[str, object], reason: str) -> None:
    assert reason in (said(ADD, arguments) or "")


def test_a_complaint_is_short() -> None:
    assert len(said(ADD, {"a": "x" * 10_000}) or "") <= 300


def test_s32_a_schema_that_would_take_for_ever_takes_no_time() -> None:
    chain: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    schemas: list[dict[str, Any]] = [
        {"properties": {"a": {"type": "string", "pattern": "(x+x+)+y"}}},
        {"patternProperties": {"(x+x+)+y": {}}, "additionalProperties": False},
        {"$defs": {**chain, "d60": {}}, "$ref": "#/$defs/d0"},
        {"$ref": "https://example.com/schema"},
        {"properties": {"a": {"$ref": "#"}}},
    ]
    begun = time.monotonic()
    for schema in schemas:
        assert said(schema, {"a": "x" * 60}) is None
        said(schema, {"x" * 60: 1})
    assert time.monotonic() - begun < 5


def test_s32_a_schema_that_is_none_allows_all() -> None:
    for schema in (
        {"properties": [], "required": "a", "additionalProperties": {}},
        {"properties": {"a": "string"}, "required": [1, {}]},
        {"properties": {"a": {"type": "text", "enum": 5}}},
        {"properties": {"a": {"type": []}}, "required": []},
        {"properties": {"a": {"type": [{}]}}},
    ):
        assert said(schema, {"a": 1, "b": 2}) is None
