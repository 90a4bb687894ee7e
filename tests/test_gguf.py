"""The GGUF parser: read against files of the format's own library, and against bytes that lie."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llamarunner.gguf import GGUFError, Header, HeaderIncomplete, parse
from tests.programs.write_gguf import write_embedding_model, write_gguf, write_model

DEMO = Path(__file__).parent.parent / "models" / "demo-chat.gguf"
DEMO_BYTES = DEMO.read_bytes()
UINT32, STRING, ARRAY = 4, 8, 9


def read(path: Path) -> Header:
    data = path.read_bytes()
    return parse(data, len(data))


def header_length(data: bytes) -> int:
    """Find by bisection the shortest beginning of a file that holds its whole header."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        try:
            parse(data[:middle], len(data))
            high = middle
        except HeaderIncomplete:
            low = middle + 1
    return low


DEMO_HEADER = DEMO_BYTES[: header_length(DEMO_BYTES)]


def string(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def header(*keys: bytes, version: int = 3, tensors: int = 0, count: int | None = None, tail: bytes = b"") -> bytes:
    counts = struct.pack("<QQ", tensors, len(keys) if count is None else count)
    return b"GGUF" + struct.pack("<I", version) + counts + b"".join(keys) + tail


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return string(b"w") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def test_reads_the_demo_model() -> None:
    found = parse(DEMO_BYTES, len(DEMO_BYTES))
    assert (found.version, found.architecture, found.quantization) == (3, "qwen3", "Q8_0")
    assert (found.context_length, found.embedding_length, found.tensor_count) == (2048, 160, 57)
    assert found.parameters == 1_753_120
    assert found.chat_template is not None
    assert "enable_thinking" in found.chat_template
    assert found.text("general.name") == "LlamaRunner demo chat"
    assert "tokenizer.ggml.tokens" not in found.metadata


def test_reads_an_embedding_model(tmp_path: Path) -> None:
    found = read(write_embedding_model(tmp_path / "tiny.gguf"))
    assert (found.architecture, found.pooling_type, found.quantization) == ("bert", 1, "F32")
    assert found.chat_template is None


VALUES = (
    st.integers(0, 2**32 - 1)
    | st.booleans()
    | st.text(max_size=80)
    | st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20)
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}\.[a-z]{1,30}", fullmatch=True), VALUES, max_size=12))
def test_agrees_with_the_formats_own_writer(tmp_path: Path, metadata: dict[str, Any]) -> None:
    found = read(write_gguf(tmp_path / "any.gguf", "llama", metadata, {"a": np.zeros((3, 5), dtype=np.float16)}))
    expected = {name: tuple(value) if isinstance(value, list) else value for name, value in metadata.items()}
    assert {name: found.metadata[name] for name in metadata} == expected
    assert (found.parameters, found.tensor_type) == (15, "F16")


@given(st.lists(st.sampled_from([0, 1, 6, 62, 63, 64, 65, 255, 256, 300]), max_size=300))
@example([5] * 64)
@example([5] * 63 + [64])
@example([0] * 129)
def test_steps_over_strings_of_every_length(lengths: list[int]) -> None:
    strings = b"".join(string(b"\0" * length) for length in lengths)
    tokens = key(b"tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, len(lengths)) + strings)
    data = header(tokens, key(b"after", UINT32, struct.pack("<I", 77)))
    assert parse(data, len(data)).number("after") == 77
    for cut in (1, 9, 17):
        with pytest.raises(HeaderIncomplete):
            parse(data[:-cut], len(data))


def test_a_vocabulary_of_150000_tokens_is_never_built(tmp_path: Path) -> None:
    tokens = [f"tok{number}" for number in range(150_000)]
    data = write_model(tmp_path / "big.gguf", {"tokenizer.ggml.tokens": tokens}).read_bytes()
    started = time.perf_counter()
    found = parse(data, len(data))
    assert time.perf_counter() - started < 0.1  # about 7 ms; ten times that on a busy machine
    assert found.chat_template  # which comes after the tokens
    tracemalloc.start()
    parse(data, len(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_every_beginning_of_a_header_is_incomplete() -> None:
    for length in range(0, len(DEMO_HEADER), 97):
        with pytest.raises(HeaderIncomplete):
            parse(DEMO_HEADER[:length], len(DEMO_BYTES))


def test_tensors_beyond_the_end_of_the_file_are_truncation() -> None:
    parse(DEMO_HEADER, len(DEMO_BYTES))
    with pytest.raises(GGUFError, match=rf"^truncated: {len(DEMO_BYTES) - 1} of {len(DEMO_BYTES)} bytes are there$"):
        parse(DEMO_HEADER, len(DEMO_BYTES) - 1)


def test_version_2_is_read() -> None:
    assert parse(header(version=2), 24).version == 2


HUGE = 2**64 - 1
LIES = {
    "not a GGUF file": b"<!DOCTYPE html>",
    "written for big-endian machines": b"GGUF" + struct.pack(">I", 3) + bytes(16),
    r"GGUF version 1 is not supported": header(version=1),
    r"claims 0 tensors and \d{20} keys": header(count=HUGE),
    r"claims \d{20} tensors": header(tensors=HUGE),
    r"a string of \d{20} bytes": header(key(b"k", STRING, string(b"", HUGE))),
    "a string of 65536 bytes": header(key(b"k" * 65_536, UINT32, bytes(4))),
    "a value of unknown type 13": header(key(b"k", 13, bytes(8))),
    "an array of unknown type 9": header(key(b"k", ARRAY, struct.pack("<IQIQ", ARRAY, 1, UINT32, 0))),
    "a key is there twice": header(*[key(b"k", UINT32, bytes(4))] * 2),
    "an alignment that is no power of two": header(key(b"general.alignment", UINT32, struct.pack("<I", 24))),
    "a tensor of 5 dimensions": header(tensors=1, tail=tensor((1,) * 5)),
    r"a tensor of \d{20,} elements": header(tensors=1, tail=tensor((HUGE, HUGE))),
    "does not fill its blocks": header(tensors=1, tail=tensor((33,), kind=8)),
    r"^truncated: \d+ of \d{20} bytes": header(tensors=1, tail=tensor((32,), offset=HUGE - 127)),
}


@pytest.mark.parametrize("message", LIES)
def test_lies_are_told_apart(message: str) -> None:
    with pytest.raises(GGUFError, match=message):
        parse(LIES[message], len(LIES[message]))


@pytest.mark.parametrize("kind", [UINT32, STRING])
def test_an_array_that_claims_too_much_is_incomplete(kind: int) -> None:
    data = header(key(b"k", ARRAY, struct.pack("<IQ", kind, 2**62)))
    with pytest.raises(HeaderIncomplete):
        parse(data, len(data))


@pytest.mark.parametrize(
    ("metadata", "quantization"),
    [
        ({"general.file_type": 15}, "Q4_K_M"),
        ({"general.file_type": 1024 + 7}, "Q8_0"),
        ({"general.file_type": 38}, "MXFP4_MOE"),
        ({"general.file_type": 0}, "F32"),
        ({"general.file_type": 4}, "F16"),
        ({"general.file_type": 9999}, "F16"),
        ({"general.file_type": "F32"}, "F16"),
        ({}, "F16"),
    ],
)
def test_quantization_is_the_file_type_or_that_of_most_parameters(
    tmp_path: Path, metadata: dict[str, Any], quantization: str
) -> None:
    tensors = {"small": np.zeros(9, dtype=np.float32), "large": np.zeros(10, dtype=np.float16)}
    assert read(write_model(tmp_path / "m.gguf", metadata, tensors=tensors)).quantization == quantization


@pytest.mark.parametrize(
    ("metadata", "fim"),
    [
        ({"tokenizer.ggml.tokens": ["a", "<|fim_prefix|>", "b"]}, True),
        ({"tokenizer.ggml.tokens": ["a"] * 50_000 + ["<fim_prefix>"]}, True),
        ({"tokenizer.ggml.fim_pre_token_id": 3}, True),
        ({"tokenizer.ggml.tokens": ["a <|fim_prefix|>"]}, False),
        ({"general.description": "<|fim_prefix|>"}, False),
    ],
)
def test_fill_in_the_middle_needs_the_whole_token(tmp_path: Path, metadata: dict[str, Any], fim: bool) -> None:
    assert read(write_model(tmp_path / "m.gguf", metadata)).has_fim_tokens is fim


def test_a_classifier_is_noticed(tmp_path: Path) -> None:
    head = {"cls.weight": np.zeros((2, 2), dtype=np.float32)}
    assert read(write_model(tmp_path / "m.gguf", tensors=head)).has_classifier


def test_only_short_arrays_are_kept(tmp_path: Path) -> None:
    found = read(write_model(tmp_path / "m.gguf", {"a.short": [1] * 1024, "a.long": [1] * 1025, "a.words": ["w"]}))
    assert found.metadata["a.short"] == (1,) * 1024
    assert not {"a.long", "a.words"} & set(found.metadata)


def test_types_are_checked_where_they_are_read(tmp_path: Path) -> None:
    found = read(write_model(tmp_path / "m.gguf", {"llama.context_length": "many", "tokenizer.chat_template": 5}))
    assert found.context_length is None
    assert found.chat_template is None
    assert found.chat_templates == ()


EXTREMES = st.sampled_from([0, 1, 0xFF, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, HUGE])
PLACES = st.integers(0, len(DEMO_HEADER) - 9) | st.integers(0, 400)
MUTATIONS = st.lists(
    st.tuples(st.just("number"), PLACES, EXTREMES.map(lambda value: struct.pack("<Q", value)))
    | st.tuples(st.just("bytes"), PLACES, st.binary(min_size=1, max_size=6))
    | st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=24))
    | st.tuples(st.just("cut"), PLACES, st.binary(min_size=1, max_size=24)),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, mutations: list[tuple[str, int, bytes]]) -> bytes:
    for how, place, patch in mutations:
        kept = place + (0 if how == "insert" else len(patch))
        data = data[:place] + (b"" if how == "cut" else patch) + data[kept:]
    return data


def exercise(data: bytes, file_size: int) -> None:
    """Read a header and ask it everything, for a file may say anything; GGUFError is the only way to fail."""
    try:
        found = parse(data, file_size)
    except GGUFError:
        return
    assert found.parameters >= 0
    assert isinstance(found.quantization, str | None)
    assert isinstance(found.chat_templates, tuple)
    assert (found.context_length or 0) >= 0
    assert (found.embedding_length or 0) >= 0


@settings(max_examples=4000, deadline=2000)
@given(MUTATIONS)
def test_a_damaged_header_is_read_or_refused(mutations: list[tuple[str, int, bytes]]) -> None:
    exercise(mutated(DEMO_HEADER, mutations), len(DEMO_BYTES))


@settings(max_examples=500, deadline=2000)
@given(st.binary(max_size=400), st.integers(0, 2**40))
def test_noise_after_the_magic_is_read_or_refused(noise: bytes, file_size: int) -> None:
    exercise(header(count=3, tensors=2) + noise, file_size)
