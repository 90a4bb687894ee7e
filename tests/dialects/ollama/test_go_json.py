"""Bytes that are no JSON are refused in Go's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects.ollama.go_json import CUT_SHORT, told
from llamarunner.dialects.strict_json import NotJson, loads
from llamarunner.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "invalid character 'h' looking for beginning of value"),
        ("  'a'", "invalid character '\\'' looking for beginning of value"),
        ("é", "invalid character 'Ã' looking for beginning of value"),
        ("\x01", "invalid character '\\x01' looking for beginning of value"),
        ("{", CUT_SHORT),
        ('{"a', CUT_SHORT),
        ('{"a"', CUT_SHORT),
        ('{"a":', CUT_SHORT),
        ('{"a": 1', CUT_SHORT),
        ('{"a": tru', CUT_SHORT),
        ("[1, ", CUT_SHORT),
        ("{a: 1}", "invalid character 'a' looking for beginning of object key string"),
        ('{"a": 1,}', "invalid character '}' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": [1], "b": "]" "c"}', "invalid character '\"' after object key:value pair"),
        ('{"a": [{"}": "\\"]"} 2]}', "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ('{"a": trux}', "invalid character 'x' in literal true (expecting 'e')"),
        ('{"a": nil}', "invalid character 'i' in literal null (expecting 'u')"),
        ('{"a": -}', "invalid character '}' in numeric literal"),
        ('{"a": "x\ny"}', "invalid character '\\n' in string literal"),
        ('{"a": "x\\qy"}', "invalid character 'q' in string escape code"),
        ('{"a": "\\\\ \\u12x4"}', "invalid character 'x' in \\u hexadecimal character escape"),
        ('{"a": 1} b', "invalid character 'b' after top-level value"),
    ],
)
def test_words(text: str, words: str) -> None:
    with pytest.raises(NotJson) as refused:
        loads(text.encode())
    assert told(refused.value.fault) == words


@given(st.text(alphabet='{}[]",:\\utrfalsn01.-e+ \n\x02é', max_size=30))
def test_whatever_is_wrong_can_be_said(text: str) -> None:
    fault = None
    try:
        loads(text.encode())
    except NotJson as error:
        fault = error.fault
    except InvalidRequest:
        pass
    assert fault is None or told(fault).startswith(("invalid character '", CUT_SHORT))
