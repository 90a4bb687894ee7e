"""Every document has one reading, or is an InvalidRequest."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamarunner.dialects import strict_json
from llamarunner.errors import InvalidRequest

REFUSED = {
    "empty": b"",
    "blank": b"  ",
    "half": b'{"a":',
    "trailing": b'{"a":1} x',
    "two documents": b"{}{}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "minus Infinity": b'{"a":-Infinity}',
    "too large a float": b'{"a":1e400}',
    "4301 digits": b'{"a":' + b"1" * 4301 + b"}",
    "minus 4301 digits": b'{"a":-' + b"1" * 4301 + b"}",
    "duplicate key": b'{"model":"a","model":"b"}',
    "duplicate key deep down": b'{"a":[{"b":{"c":1,"c":1}}]}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":2}',
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":"\\uDC00"}',
    "lone surrogate as key": b'{"\\udbff":1}',
    "surrogates in the wrong order": b'{"a":"\\udc00\\ud800"}',
    "UTF-8 surrogate": b'{"a":"\xed\xa0\x80"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without BOM": '{"a":1}'.encode("utf-16-le"),
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "Latin-1": b'{"a":"\xe9"}',
    "overlong slash": b'{"a":"\xc0\xaf"}',
    "raw NUL": b'{"a":"\x00"}',
    "NUL between": b'{"a":\x001}',
    "raw line break in a string": b'{"a":"\n"}',
    "single quotes": b"{'a':1}",
    "comment": b'{"a":1} // b',
    "trailing comma": b'{"a":[1,]}',
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "hex": b'{"a":0x10}',
    "bad escape": b'{"a":"\\x41"}',
    "bare word": b"undefined",
    "65 levels": b"[" * 65 + b"]" * 65,
    "65 levels of objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "100,000 levels": b"[" * 100_000,
    "100,000 levels, closed": b"[" * 100_000 + b"]" * 100_000,
    "200,001 values": b"[" + b"1," * 200_000 + b"1]",
    "200,001 empty strings": b"[" + b'"",' * 200_000 + b'""]',
    "200,001 empty lists": b"[" + b"[]," * 200_000 + b"[]]",
    "an unending string": b'["' + b"\\" * 1_000_000,
    "many quotes": b'"' * 1_000_000,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(body: bytes) -> None:
    """F-33: what parsers disagree about, or what could stop the loop, is refused."""
    with pytest.raises(InvalidRequest):
        strict_json.loads(body)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_an_object_is_wanted(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        strict_json.loads_object(body)


ACCEPTED = {
    "64 levels": (b"[" * 64 + b"]" * 64, None),
    "4300 digits": (b"1" * 4300, None),
    "a pair of surrogates": (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    "an escaped backslash before u": (b'"\\\\ud800"', "\\ud800"),
    "an escaped NUL": (b'"\\u0000"', "\0"),
    "brackets in a string": (json.dumps("[{" * 100_000).encode(), "[{" * 100_000),
    "commas in a string": (json.dumps('a, \\"b\\", ' * 100_000).encode(), 'a, \\"b\\", ' * 100_000),
    "siblings": (b"[" + b"[]," * 99 + b"[]]", [[]] * 100),
    "whitespace": (b' \t\r\n{"a" : 1} \n', {"a": 1}),
    "the same key in two objects": (b'[{"a":1},{"a":1}]', [{"a": 1}, {"a": 1}]),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts(body: bytes, value: object) -> None:
    assert strict_json.loads(body) == (json.loads(body) if value is None else value)


def test_tells_where_the_mistake_is() -> None:
    with pytest.raises(InvalidRequest, match=r"line 2, column 6"):
        strict_json.loads(b'{"a": 1,\n "b" 2}')


def test_names_the_key_that_appears_twice() -> None:
    with pytest.raises(InvalidRequest, match='"model"') as caught:
        strict_json.loads(b'{"model":"a","x":{},"model":"b"}')
    assert caught.value.param == "model"


@pytest.mark.parametrize("unit", [b"1,", b'"",', b"[],", b'{"a":1},', b'"\\"",', b"[", b'{"', b'"'])
def test_hostile_bulk_is_refused_before_it_is_parsed(unit: bytes) -> None:
    """Finding 10: 20 MB of small values must not hold the loop for seconds."""
    body = b"[" + unit * (20_000_000 // len(unit))
    started = time.process_time()
    with pytest.raises(InvalidRequest):
        strict_json.loads(body)
    assert time.process_time() - started < 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_what_was_written_is_read_again(value: object) -> None:
    assert strict_json.loads(strict_json.dumps(value)) == value
    assert strict_json.loads(json.dumps(value).encode()) == value


FRAGMENTS = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\\u",
        b"d800",
        b"1",
        b"e9",
        b"-",
        b".",
        b"null",
        b"NaN",
        b'"a":',
        b"\x00",
        b"\xff",
    ]
)


@pytest.mark.timeout(240)  # ten thousand of them
@settings(max_examples=2000, deadline=None)
@given(VALUES, st.binary(max_size=3) | FRAGMENTS, st.lists(st.integers(0, 400), min_size=4, max_size=4))
def test_any_bytes_are_read_or_refused(value: object, put: bytes, places: list[int]) -> None:
    """F-33: 10,000 documents; nothing but InvalidRequest, and what is read can be said again in UTF-8."""
    text = json.dumps(value).encode()
    _read_or_refused(put + text[: places[0]])
    for place in places:
        at = place % (len(text) + 1)
        _read_or_refused(text[:at] + put + text[at:])


@settings(max_examples=500, deadline=None)
@given(st.lists(FRAGMENTS, max_size=30).map(b"".join))
def test_any_fragments_are_read_or_refused(body: bytes) -> None:
    _read_or_refused(body)


def _read_or_refused(body: bytes) -> None:
    try:
        value = strict_json.loads(body)
    except InvalidRequest as error:
        error.message.encode()
        return
    assert json.loads(body) == value
    assert strict_json.loads(strict_json.dumps(value)) == value


@given(st.floats())
def test_numbers_are_finite(number: float) -> None:
    body = json.dumps([number]).encode()
    if math.isfinite(number):
        assert strict_json.loads(body) == [number]
    else:
        with pytest.raises(InvalidRequest):
            strict_json.loads(body)


def test_late_duplicate_among_many_keys_is_found_in_linear_time() -> None:
    body = "{" + ",".join(f'"k{number}":0' for number in range(190_000)) + ',"z":1,"z":2}'
    began = time.perf_counter()
    with pytest.raises(InvalidRequest, match='"z" appears twice'):
        strict_json.loads(body.encode())
    assert time.perf_counter() - began < 5
