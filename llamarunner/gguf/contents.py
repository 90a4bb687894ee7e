"""All that a GGUF header holds, for people who want to see it: arrays with their strings, and a line for each tensor.

`parse` keeps what the house needs of every model; this is read anew each time that somebody asks.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from llamarunner.gguf.header import GGUFError, Scalar
from llamarunner.gguf.parser import (
    ARRAY,
    ARRAY_HEAD,
    MAX_KEY_BYTES,
    MAX_STRING_BYTES,
    SCALARS,
    STRING,
    TENSOR_TAILS,
    UINT32,
    Cursor,
    read_version,
    skip_strings,
)
from llamarunner.gguf.types import TENSOR_TYPES

LONGEST = 5  # elements of an array that is given even if not all is wanted

Shown = Scalar | list[Scalar] | None


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    kind: str  # ggml's name of the type
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """`metadata` in the file's order; what JSON cannot write, such as infinity, is None."""

    metadata: dict[str, Shown]
    tensors: tuple[Tensor, ...]


def contents(data: bytes, everything: bool) -> Contents:
    """Read the header at the start of `data`; arrays longer than `LONGEST` are empty unless everything is wanted.

    Raises GGUFError for what `parse` would refuse too, as far as it matters here.
    """
    cursor = Cursor(data)
    read_version(cursor)
    tensor_count, key_count = cursor.uint64(), cursor.uint64()
    metadata = {}
    for _ in range(key_count):
        key = cursor.string(MAX_KEY_BYTES).decode(errors="replace")
        (kind,) = cursor.unpack(UINT32)
        metadata[key] = _value(cursor, kind, everything)
    return Contents(metadata, tuple(_tensor(cursor) for _ in range(tensor_count)))


def _value(cursor: Cursor, kind: int, everything: bool) -> Shown:
    if kind == STRING:
        return cursor.string(MAX_STRING_BYTES).decode(errors="replace")
    if kind == ARRAY:
        return _array(cursor, everything)
    if kind not in SCALARS:
        raise GGUFError(f"damaged: a value of unknown type {kind}")
    return _plain(cursor.unpack(SCALARS[kind])[0])


def _array(cursor: Cursor, everything: bool) -> list[Scalar]:
    kind, count = cursor.unpack(ARRAY_HEAD)
    wanted = everything or count <= LONGEST
    if kind == STRING:
        if not wanted:
            cursor.position = skip_strings(cursor.data, cursor.position, count)
            return []
        return [cursor.string(MAX_STRING_BYTES).decode(errors="replace") for _ in range(count)]
    if kind not in SCALARS:
        raise GGUFError(f"damaged: an array of unknown type {kind}")
    start = cursor.skip(count * SCALARS[kind].size)
    if not wanted:
        return []
    numbers = struct.unpack_from(f"<{count}{SCALARS[kind].format[1:]}", cursor.data, start)
    return [_plain(number) or 0 for number in numbers]


def _tensor(cursor: Cursor) -> Tensor:
    name = cursor.string(MAX_KEY_BYTES).decode(errors="replace")
    (dimensions,) = cursor.unpack(UINT32)
    if dimensions >= len(TENSOR_TAILS):
        raise GGUFError(f"damaged: a tensor of {dimensions} dimensions")
    *shape, kind, _ = cursor.unpack(TENSOR_TAILS[dimensions])
    return Tensor(name, TENSOR_TYPES[kind].name if kind in TENSOR_TYPES else str(kind), tuple(shape))


def _plain(number: Scalar) -> Scalar | None:
    return None if isinstance(number, float) and not math.isfinite(number) else number
