from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.toolbox.listing import Listed, Unusable, named, picked, plain

SCHEMA: Mapping[str, object] = {"type": "object"}


def tools(*names: str) -> list[Listed]:
    return [Listed(name, "", SCHEMA) for name in names]


def names_of(**servers: list[Listed]) -> list[tuple[str, int, str]]:
    told = [(label, {"label": label}, listed) for label, listed in servers.items()]
    return [(tool.name, index, name) for tool, index, name in named(told)]


def test_the_allowed_ones_are_picked_in_their_order() -> None:
    assert [tool.name for tool in picked(tools("a", "b", "c"), ["c", "a", "x"], 2)] == ["a", "c"]
    assert [tool.name for tool in picked(tools("a", "b"), None, 2)] == ["a", "b"]
    assert picked(tools("a", "b"), [], 2) == []
    assert picked([*tools("a"), Listed("b", "", {"type": "string"})], ["a"], 2) == tools("a"), "others may be no good"


def test_a_tool_is_made_fit_for_a_model() -> None:
    (tool,) = picked([Listed("a", "x" * 5000, {"properties": {"x": {"type": "string"}}})], None, 1)
    assert (len(tool.description), tool.description[-2:]) == (4096, "x…")
    assert tool.schema == {"type": "object", "properties": {"x": {"type": "string"}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"items": [schema]} if _ % 2 else {"not": schema}
    return {**schema, "type": "object"}


NO_GOOD: dict[str, tuple[list[Listed], str]] = {
    "too many": (tools("a", "b", "c"), "3 tools, and at most 2"),
    "twice": (tools("a", "a"), "'a' twice"),
    "nameless": (tools(""), "0 characters"),
    "long name": (tools("x" * 257), "257 characters"),
    "no object": ([Listed("a", "", {"type": "array"})], "not that of an object"),
    "large": ([Listed("a", "", {"x": "x" * 32_768})], "32768 bytes"),
    "deep": ([Listed("a", "", nested(60))], "nested deeper than 32"),
    "infinite": ([Listed("a", "", {"minimum": float("inf")})], "JSON cannot hold"),
}


@pytest.mark.parametrize("case", NO_GOOD)
def test_what_is_no_good(case: str) -> None:
    listed, reason = NO_GOOD[case]
    with pytest.raises(Unusable, match=reason):
        picked(listed, None, 2)


def test_the_depth_that_is_allowed_is_allowed() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(30):
        deep = {"type": "object", "x": deep}
    assert picked([Listed("a", "", deep)], None, 1)
    with pytest.raises(Unusable):
        picked([Listed("a", "", {"x": {"y": deep}})], None, 1)


def test_names_that_only_one_server_has_stay_as_they_are() -> None:
    assert names_of(one=tools("a", "b"), two=tools("c")) == [("a", 0, "a"), ("b", 0, "b"), ("c", 1, "c")]


def test_s31_names_that_several_have_get_the_label_with_all_of_them() -> None:
    assert names_of(one=tools("a", "b"), two=tools("a")) == [("one_a", 0, "a"), ("b", 0, "b"), ("two_a", 1, "a")]


def test_s31_no_server_can_take_a_name_that_another_is_called_by() -> None:
    told = names_of(one=tools("a"), two=tools("a", "one_a", "two_a"))
    assert [(index, name) for _, index, name in told] == [(0, "a"), (1, "a"), (1, "one_a"), (1, "two_a")]
    assert len({name for name, _, _ in told}) == 4
    assert told[0][0] == "one_a"


@given(st.lists(st.lists(st.text(max_size=80), max_size=8, unique=True), max_size=4))
def test_names_are_plain_unique_and_lead_back(listed: list[list[str]]) -> None:
    told = list(named([("läbel " * index, {}, tools(*names)) for index, names in enumerate(listed)]))
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", tool.name) for tool, _, _ in told)
    assert len({tool.name for tool, _, _ in told}) == len(told)
    assert [(index, name) for _, index, name in told] == [(i, name) for i, names in enumerate(listed) for name in names]


def test_plain_names_stay() -> None:
    assert [plain(name) for name in ("get-it_2", "a.b/c", "…", "")] == ["get-it_2", "a_b_c", "_", "_"]
    assert json.dumps(plain('"quoted"\n')) == '"_quoted_"'
