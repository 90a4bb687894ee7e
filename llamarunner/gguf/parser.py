"""Bytes to `Header`; a thinking room, and the first line of defence against files that lie."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

from llamarunner.gguf.header import GGUFError, Header, HeaderIncomplete, Scalar, Value
from llamarunner.gguf.types import TENSOR_TYPES, TensorType

HEADER_BYTES = 64 << 20  # more than four times the largest header seen (Gemma 3 with its merges)

_MAX_KEYS = 65_536
MAX_KEY_BYTES = 65_535
_MAX_TENSORS = 65_536
_MAX_DIMENSIONS = 4
MAX_STRING_BYTES = 4 << 20
_MAX_ELEMENTS = 1 << 62
_MAX_KEPT_NUMBERS = 1_024  # arrays that say something about each layer are kept, vocabularies are not

STRING, ARRAY = 8, 9
SCALARS = {
    number: struct.Struct(f"<{letter}")
    for number, letter in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_PREAMBLE = struct.Struct("<4sI")
UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
ARRAY_HEAD = struct.Struct("<IQ")
TENSOR_TAILS = tuple(struct.Struct(f"<{count}QIQ") for count in range(_MAX_DIMENSIONS + 1))

_FIM_KEYS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_FIM_TOKENS = tuple(
    _UINT64.pack(len(token.encode())) + token.encode()
    for token in (
        "<|fim_prefix|>",
        "<fim_prefix>",
        "<fim-prefix>",
        "<｜fim▁begin｜>",
        "<|code_prefix|>",
        "<PRE>",
        "▁<PRE>",
    )
)
_UNKNOWN_TYPE = TensorType("", 1, 0)
_CLASSIFIERS = (b"cls.weight", b"cls.output.weight")
_FIM_REACH = 65_536  # bytes at both ends of the vocabulary, where tokenizers keep their special tokens


class Cursor:
    """A place in the bytes that never goes past their end."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        start = self.skip(layout.size)
        return layout.unpack_from(self.data, start)

    def skip(self, size: int) -> int:
        """Step over `size` bytes and return where they began."""
        start, end = self.position, self.position + size
        if end > len(self.data):
            raise HeaderIncomplete
        self.position = end
        return start

    def uint64(self) -> int:
        return self.unpack(_UINT64)[0]

    def string(self, limit: int) -> bytes:
        size = self.uint64()
        if size > limit:
            raise GGUFError(f"damaged: a string of {size} bytes in the header")
        start = self.skip(size)
        return self.data[start : self.position]


def parse(data: bytes, file_size: int) -> Header:
    """Read the header at the start of `data`, the first bytes of a file of `file_size` bytes.

    Raises `HeaderIncomplete` when it does not end within `data`, and `GGUFError` for every other fault, among them
    tensors that lie beyond the end of the file.
    """
    cursor = Cursor(data)
    version = read_version(cursor)
    tensor_count, key_count = cursor.uint64(), cursor.uint64()
    if tensor_count > _MAX_TENSORS or key_count > _MAX_KEYS:
        raise GGUFError(f"damaged: the header claims {tensor_count} tensors and {key_count} keys")
    metadata, fim = _read_metadata(cursor, key_count)
    tensors = _read_tensors(cursor, tensor_count)
    expected = _aligned(cursor.position, metadata) + tensors.end
    if tensor_count and expected > file_size:
        raise GGUFError(f"truncated: {file_size} of {expected} bytes are there")
    return Header(
        version=version,
        metadata=MappingProxyType(metadata),
        tensor_count=tensor_count,
        parameters=sum(tensors.elements.values()),
        tensor_type=tensors.dominant,
        has_classifier=tensors.has_classifier,
        has_fim_tokens=fim or any(key in metadata for key in _FIM_KEYS),
    )


def read_version(cursor: Cursor) -> int:
    if cursor.data[:4] != b"GGUF"[: len(cursor.data)]:
        raise GGUFError("not a GGUF file")
    version = cursor.unpack(_PREAMBLE)[1]
    if version in (2, 3):
        return version
    if version in (2 << 24, 3 << 24):
        raise GGUFError("written for big-endian machines")
    raise GGUFError(f"GGUF version {version} is not supported (2 and 3 are)")


def _read_metadata(cursor: Cursor, key_count: int) -> tuple[dict[str, Value], bool]:
    """Return what is kept of the metadata, and whether the vocabulary has tokens to fill in the middle."""
    kept: dict[str, Value] = {}
    seen: set[bytes] = set()
    fim = False
    for _ in range(key_count):
        key = cursor.string(MAX_KEY_BYTES)
        if key in seen:
            raise GGUFError("damaged: a key is there twice")
        seen.add(key)
        (kind,) = cursor.unpack(UINT32)
        start = cursor.position
        value = _read_value(cursor, kind)
        if value is not None:
            kept[key.decode(errors="replace")] = value
        if key == b"tokenizer.ggml.tokens":
            fim = _mentions_fim(cursor.data, start, cursor.position)
    return kept, fim


def _read_value(cursor: Cursor, kind: int) -> Value | None:
    """Read one value; None stands for an array that is not kept."""
    if kind == STRING:
        return cursor.string(MAX_STRING_BYTES).decode(errors="replace")
    if kind == ARRAY:
        return _read_array(cursor)
    if kind not in SCALARS:
        raise GGUFError(f"damaged: a value of unknown type {kind}")
    return cursor.unpack(SCALARS[kind])[0]


def _read_array(cursor: Cursor) -> tuple[Scalar, ...] | None:
    kind, count = cursor.unpack(ARRAY_HEAD)
    if kind == STRING:
        cursor.position = skip_strings(cursor.data, cursor.position, count)
        return None
    if kind not in SCALARS:
        raise GGUFError(f"damaged: an array of unknown type {kind}")
    layout = SCALARS[kind].format[1:]
    start = cursor.skip(count * SCALARS[kind].size)
    return struct.unpack_from(f"<{count}{layout}", cursor.data, start) if count <= _MAX_KEPT_NUMBERS else None


# 64 strings of at most 63 bytes: the eight bytes of the length, then as many bytes as the first of these says. Taken by
# `re` in such strides, a vocabulary is walked in two thirds of the time.
_STRIDE = 64
_SHORT_STRINGS = re.compile(
    b"(?s:%b){%d}+" % (b"|".join(rb"\x%02x%b.{%d}" % (size, rb"\x00" * 7, size) for size in range(64)), _STRIDE)
)


def skip_strings(data: bytes, position: int, count: int) -> int:
    """Return where `count` strings end that begin at `position`."""
    if count * _UINT64.size > len(data) - position:
        raise HeaderIncomplete
    while count > 0:
        stride = min(count, _STRIDE)
        if stride == _STRIDE and (match := _SHORT_STRINGS.match(data, position)):
            position = match.end()
        else:
            position = _skip_one_by_one(data, position, stride)
        count -= stride
    return position


def _skip_one_by_one(data: bytes, position: int, count: int) -> int:
    read_length, last = _UINT64.unpack_from, len(data) - _UINT64.size
    for _ in range(count):
        if position > last:
            raise HeaderIncomplete
        position += _UINT64.size + read_length(data, position)[0]
    if position > len(data):
        raise HeaderIncomplete
    return position


def _mentions_fim(data: bytes, start: int, end: int) -> bool:
    reach = min(_FIM_REACH, end - start)
    ends = data[start : start + reach], data[end - reach : end]
    return any(token in part for part in ends for token in _FIM_TOKENS)


@dataclass(slots=True)
class _Tensors:
    """What the lines about tensors add up to."""

    elements: Counter[int] = field(default_factory=Counter)  # by ggml type
    end: int = 0  # of the last tensor, counted from where the data begins
    has_classifier: bool = False

    @property
    def dominant(self) -> str | None:
        kind = max(self.elements, key=lambda kind: (self.elements[kind], -kind), default=-1)
        return TENSOR_TYPES[kind].name if kind in TENSOR_TYPES else None


def _read_tensors(cursor: Cursor, count: int) -> _Tensors:
    tensors = _Tensors()
    for _ in range(count):
        name = cursor.string(MAX_KEY_BYTES)
        (dimensions,) = cursor.unpack(UINT32)
        if dimensions > _MAX_DIMENSIONS:
            raise GGUFError(f"damaged: a tensor of {dimensions} dimensions")
        *shape, kind, offset = cursor.unpack(TENSOR_TAILS[dimensions])
        elements = prod(shape)
        tensors.elements[kind] += elements
        tensors.end = max(tensors.end, offset + _tensor_bytes(kind, elements))
        tensors.has_classifier |= name in _CLASSIFIERS
    return tensors


def _tensor_bytes(kind: int, elements: int) -> int:
    """Return the size of a tensor; of a type that came after this table, the least it can be."""
    if elements > _MAX_ELEMENTS:
        raise GGUFError(f"damaged: a tensor of {elements} elements")
    _, block_elements, block_bytes = TENSOR_TYPES.get(kind, _UNKNOWN_TYPE)
    if elements % block_elements:
        raise GGUFError("damaged: a tensor that does not fill its blocks")
    return elements // block_elements * block_bytes


def _aligned(position: int, metadata: Mapping[str, Value]) -> int:
    """Return where the tensors' data begins, for a header that ends at `position`."""
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise GGUFError("damaged: an alignment that is no power of two")
    return (position + alignment - 1) // alignment * alignment
