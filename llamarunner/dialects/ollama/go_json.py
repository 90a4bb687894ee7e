"""What Go's decoder says about bytes that are no JSON, which is what Ollama answers then."""

from __future__ import annotations

import re
from itertools import takewhile
from json import JSONDecodeError

CUT_SHORT = "unexpected EOF"
_WORDS = ("true", "false", "null")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[][{}]")
_HEX = frozenset("0123456789abcdefABCDEF")
_ESCAPES = frozenset('"\\/bfnrtu')
_AFTER = {"{": "after object key:value pair", "[": "after array element", "": "after top-level value"}


def told(fault: JSONDecodeError) -> str:
    """Say in Go's words where Python's parser stumbled."""
    text, at, message = fault.doc, fault.pos, fault.msg
    if message.startswith("Illegal trailing comma"):  # newer Pythons point at the comma
        at += 1
        message = "Expecting property name" if message.endswith("object") else "Expecting value"
    if message.startswith("Unterminated string"):
        return CUT_SHORT
    if message.startswith("Invalid \\"):
        return _in_escape(text, text.index("\\", max(0, at - 2)))
    if message.startswith("Invalid control character"):
        return _unexpected(text, at, "in string literal")
    at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
    if message.startswith("Expecting value"):
        return _no_value(text, at)
    if message.startswith("Expecting property name"):
        return _unexpected(text, at, "looking for beginning of object key string")
    if message.startswith("Expecting ':'"):
        return _unexpected(text, at, "after object key")
    return _unexpected(text, at, _AFTER["" if message.startswith("Extra data") else _inside(text[:at])])


def _unexpected(text: str, at: int, where: str) -> str:
    """Go reads bytes, and says of a letter that has several the first."""
    if at >= len(text):
        return CUT_SHORT
    letter = chr(text[at].encode()[0])
    said = {"'": "'\\''", "\n": "'\\n'", "\r": "'\\r'", "\t": "'\\t'"}.get(letter)
    if said is None:
        said = f"'{letter}'" if letter.isprintable() else f"'\\x{ord(letter):02x}'"
    return f"invalid character {said} {where}"


def _no_value(text: str, at: int) -> str:
    rest = text[at : at + 5]
    for word in _WORDS:
        if rest and rest[0] == word[0]:
            same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(rest, word, strict=False))))
            return _unexpected(text, at + same, f"in literal {word} (expecting '{word[same]}')")
    if rest.startswith("-"):
        return _unexpected(text, at + 1, "in numeric literal")
    return _unexpected(text, at, "looking for beginning of value")


def _in_escape(text: str, at: int) -> str:
    letter = text[at + 1 : at + 2]
    if letter not in _ESCAPES or not letter:
        return _unexpected(text, at + 1, "in string escape code")
    end = at + 2 + len(list(takewhile(_HEX.__contains__, text[at + 2 : at + 6])))
    return _unexpected(text, end, "in \\u hexadecimal character escape")


def _inside(text: str) -> str:
    """The bracket that is open at the end of a text in which all is well so far; empty if none is."""
    open_ = [""]
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        open_.append(bracket) if bracket in "{[" else open_.pop()
    return open_[-1]
