"""How many tokens an answer was, read from its first and its last bytes.

All dialects end an answer with an object `usage`, llama.cpp with `timings` too, which streams of OpenAI's have in any
case; a stream of Anthropic's tells its input in `message_start`, its first event. An embedding's `usage` may stand
before its megabytes. So nothing else is looked at, and an answer is never parsed whole.

Both names are found with their quotation marks and the colon, which stand together in no JSON text: inside a string the
second mark would end it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

HEAD_BYTES = 2048
TAIL_BYTES = 4096
PIECES = 16  # that are kept before they are cut to size
MOST = 2**53

_DECODER = json.JSONDecoder()
_OPENING = b'"message_start"'


class Usage(NamedTuple):
    """Tokens of an answer; None is what it did not tell. Those of the prompt include what was in the cache."""

    prompt: int | None = None
    completion: int | None = None
    tokens_per_second: float | None = None  # of the generation alone


class Ends:
    """The first and the last bytes of a stream, whatever its pieces are; adding a small one copies nothing.

    It keeps at most 70 kB, however large the pieces are.
    """

    __slots__ = ("_head", "_pieces", "_tail")

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        if len(self._pieces) == PIECES or len(piece) > TAIL_BYTES:
            self._settle()

    @property
    def head(self) -> bytes:
        self._settle()
        return self._head

    @property
    def tail(self) -> bytes:
        self._settle()
        return self._tail

    def _settle(self) -> None:
        fresh = b"".join(self._pieces)
        self._pieces.clear()
        self._head += fresh[: HEAD_BYTES - len(self._head)]
        self._tail = (self._tail + fresh[-TAIL_BYTES:])[-TAIL_BYTES:]


def of_answer(body: bytes) -> Usage:
    """Read the usage of an answer that is there whole."""
    return read(body[:HEAD_BYTES], body[-TAIL_BYTES:])


def read(head: bytes, tail: bytes) -> Usage:
    """Read the usage from the ends of an answer, or of a part of one; never raises."""
    last, first = tail.rfind(b'"usage":'), head.find(b'"usage":')
    found = [(_object(part, at), _opens(part, at)) for part, at in ((tail, last), (head, first)) if at >= 0]
    timings = _object(tail, tail.rfind(b'"timings":'))
    prompt = [_prompt(usage) for usage, _ in found]
    completion = [_completion(usage) for usage, opens in found if not opens]
    by_timings = told({}, timings)
    return Usage(
        _first([*prompt, by_timings.prompt]), _first([*completion, by_timings.completion]), by_timings.tokens_per_second
    )


def told(usage: Mapping[str, object], timings: Mapping[str, object]) -> Usage:
    """Read the two objects of an answer; what `usage` does not say, `timings` may."""
    speed = timings.get("predicted_per_second")
    return Usage(
        _first([_prompt(usage), _prompt_of(timings)]),
        _first([_completion(usage), _count(timings, "predicted_n")]),
        float(speed) if isinstance(speed, int | float) and 0 < speed < MOST else None,
    )


def _object(part: bytes, at: int) -> Mapping[str, object]:
    """The object that follows the name found there; empty if there is none, or not all of it."""
    if at < 0:
        return {}
    text = part[part.index(b":", at) + 1 :].decode(errors="replace").lstrip()
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _opens(part: bytes, at: int) -> bool:
    """Tell whether it is what stands before the first token."""
    return _OPENING in part[part.rfind(b"\n", 0, at) + 1 : at]


def _prompt(usage: Mapping[str, object]) -> int | None:
    """Tokens of the prompt; Anthropic counts those of the cache apart."""
    if (count := _count(usage, "prompt_tokens", "input_tokens")) is None:
        return None
    cached = (_count(usage, f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
    return count + sum(cached)


def _completion(usage: Mapping[str, object]) -> int | None:
    return _count(usage, "completion_tokens", "output_tokens")


def _prompt_of(timings: Mapping[str, object]) -> int | None:
    read, cached = _count(timings, "prompt_n"), _count(timings, "cache_n")
    return None if read is None or cached is None else read + cached


def _count(document: Mapping[str, object], *names: str) -> int | None:
    values = (document.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 <= value < MOST), None)


def _first(values: list[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)
