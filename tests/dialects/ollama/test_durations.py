"""Durations and keep_alive, as Go reads them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects.ollama.durations import keep_alive, parse_duration
from llamarunner.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("300ms", 0.3),
        ("-1m", -60),
        ("+2s", 2),
        ("0", 0),
        ("-0", 0),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("1h1s1ms", 3601.001),
        ("10µs", 1e-5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-1", 'time: missing unit in duration "-1"'),
        ("300", 'time: missing unit in duration "300"'),
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("1h 5m", 'time: unknown unit "h " in duration "1h 5m"'),
        ("1m.", 'time: invalid duration "1m."'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
        ("0h" * 51, f'time: invalid duration "{"0h" * 50}"'),  # no part is read of what is too long
    ],
)
def test_wrong_durations_are_refused_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_duration(text)
    assert refused.value.message == words


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_an_error(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert math.isfinite(parse_duration(text))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((None, None), (0, 0), (300, 300), (1.5, 1.5), (-1, math.inf), ("-1m", math.inf), ("0", 0), ("5m", 300)),
        *((10**400, math.inf), (-(10**400), math.inf)),
    ],
)
def test_keep_alive(value: object, seconds: float | None) -> None:
    assert keep_alive(value) == seconds


@pytest.mark.parametrize(("value", "kind"), [(True, "bool"), ([], "[]interface {}"), ({}, "map[string]interface {}")])
def test_keep_alive_of_another_type_is_refused(value: object, kind: str) -> None:
    with pytest.raises(InvalidRequest, match="Unsupported type") as refused:
        keep_alive(value)
    assert refused.value.message == f"Unsupported type: '{kind}'"
