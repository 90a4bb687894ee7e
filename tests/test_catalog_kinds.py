"""What headers say a file is, what it can do, and how much memory it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.catalog import Capability, ModelEntry, kv_cache_bytes
from llamarunner.catalog.kinds import Kind, capabilities_of, kind_of, why_unusable
from llamarunner.gguf import Header

CHAT, COMPLETION, EMBEDDING, RERANK, VISION, TOOLS, THINKING, FIM = [*Capability][:8]  # of GGUF models
TEMPLATE = "tokenizer.chat_template"


def header(architecture: str = "llama", classifier: bool = False, fim: bool = False, **metadata: Any) -> Header:
    known = {"general.architecture": architecture, "tokenizer.ggml.model": "gpt2"}
    return Header(3, {**known, **metadata}, 1, 32, "F16", classifier, fim)


@pytest.mark.parametrize(
    ("read", "capabilities"),
    [
        (header(), {COMPLETION}),
        (header(**{TEMPLATE: "{{ messages }}"}), {CHAT, COMPLETION}),
        (header(**{TEMPLATE: "{% if tools %}"}), {CHAT, COMPLETION, TOOLS}),
        (header(**{TEMPLATE: "x", f"{TEMPLATE}.tool_use": "{{ tool_calls }}"}), {CHAT, COMPLETION, TOOLS}),
        (header(**{TEMPLATE: "{% if enable_thinking %}"}), {CHAT, COMPLETION, THINKING}),
        (header(**{TEMPLATE: "<think>\n"}), {CHAT, COMPLETION, THINKING}),
        (header(**{TEMPLATE: "reasoning_effort"}), {CHAT, COMPLETION, THINKING}),
        (header(fim=True), {COMPLETION, FIM}),
        (header("bert"), {EMBEDDING}),
        (header("gemma-embedding", **{TEMPLATE: "x"}), {EMBEDDING}),
        (header("qwen3", **{"qwen3.pooling_type": 3, TEMPLATE: "x"}), {EMBEDDING}),
        (header("qwen3", **{"qwen3.pooling_type": 0}), {COMPLETION}),
        (header("bert", **{"bert.pooling_type": 4}), {RERANK}),
        (header("bert", classifier=True), {RERANK}),
    ],
)
def test_capabilities_follow_from_the_header(read: Header, capabilities: set[Capability]) -> None:
    assert capabilities_of(read) == capabilities


@pytest.mark.parametrize(
    ("projector", "sees"),
    [
        ({"clip.has_vision_encoder": True}, True),
        ({}, True),
        ({"clip.has_audio_encoder": True}, False),
        ({"clip.has_audio_encoder": True, "clip.has_vision_encoder": True}, True),
    ],
)
def test_a_projector_for_images_gives_vision(projector: dict[str, Any], sees: bool) -> None:
    assert (VISION in capabilities_of(header(), header("clip", **projector))) is sees


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (header(), Kind.MODEL),
        (header("clip"), Kind.PROJECTOR),
        (header("anything", **{"general.type": "mmproj"}), Kind.PROJECTOR),
        (header(**{"general.type": "adapter"}), Kind.PART),
        (header(**{"general.type": "imatrix"}), Kind.PART),
        (header("controlvector"), Kind.PART),
        (Header(3, {"general.architecture": "llama"}, 0, 0, None), Kind.PART),
        (Header(3, {"general.architecture": "llama", "split.count": 3}, 0, 0, None), Kind.MODEL),
    ],
)
def test_parts_of_models_are_no_models(read: Header, kind: Kind) -> None:
    assert kind_of(read) is kind


def test_what_is_no_language_model_is_unusable() -> None:
    assert why_unusable(header()) is None
    assert "'flux' is not a language model" in str(why_unusable(header("flux", **{"tokenizer.ggml.model": None})))
    assert why_unusable(Header(3, {}, 1, 1, None)) == "the file does not say its architecture"


def attention(architecture: str, **details: Any) -> Header:
    return header(architecture, **{f"{architecture}.{key.replace('__', '.')}": value for key, value in details.items()})


LLAMA = attention("llama", block_count=28, attention__head_count=24, attention__head_count_kv=8, embedding_length=3072)
GEMMA = attention(
    "gemma3",
    block_count=48,
    attention__head_count_kv=8,
    attention__key_length=256,
    attention__value_length=256,
    attention__sliding_window=1024,
)
DEEPSEEK = attention(
    "deepseek2",
    block_count=61,
    attention__head_count_kv=1,
    attention__key_length=576,
    attention__value_length=512,
    attention__key_length_mla=192,
)
QWEN3NEXT = attention(
    "qwen3next",
    block_count=48,
    full_attention_interval=4,
    attention__head_count_kv=2,
    attention__key_length=256,
    attention__value_length=256,
)


@pytest.mark.parametrize(
    ("read", "ctx_size", "expected"),
    [
        (LLAMA, 1, 28 * 8 * 2 * 128 * 2),  # Llama 3.2 3B: 112 KiB a token
        (LLAMA, 131_072, 131_072 * 114_688),
        (attention("gpt2", block_count=12, attention__head_count=12, embedding_length=768), 1, 12 * 12 * 2 * 64 * 2),
        (attention("mamba", block_count=24, embedding_length=768), 4096, 0),
        (attention("jamba", attention__head_count_kv=(0, 0, 8, 0), attention__key_length=64), 10, 8 * 64 * 10 * 2),
        (GEMMA, 1024, 48 * 8 * 512 * 1024 * 2),
        (GEMMA, 32_768, 8 * 512 * 2 * (8 * 32_768 + 40 * (1024 + 512))),
        (DEEPSEEK, 100, 61 * 576 * 100 * 2),
        (QWEN3NEXT, 100, 12 * 2 * 512 * 100 * 2),
    ],
)
def test_the_cache_is_estimated_from_layers_heads_and_window(read: Header, ctx_size: int, expected: int) -> None:
    assert kv_cache_bytes(read, ctx_size) == pytest.approx(expected, abs=16)


def test_a_quantised_cache_is_smaller() -> None:
    assert kv_cache_bytes(LLAMA, 1000, bytes_per_element=1.0) * 2 == kv_cache_bytes(LLAMA, 1000)


def test_a_pattern_of_the_layers_counts_before_what_is_known_of_the_architecture() -> None:
    pattern = {"gemma3.attention.sliding_window_pattern": (True, False)}
    half = Header(3, {**GEMMA.metadata, **pattern}, 1, 32, "F16")
    assert kv_cache_bytes(half, 32_768) == 8 * 512 * 2 * 24 * (32_768 + 1024 + 512)


def test_memory_is_weights_cache_and_a_margin() -> None:
    entry = ModelEntry("m", Path("m.gguf"), size=2_000_000_000, mmproj_size=500_000_000, header=LLAMA)
    least = 2_500_000_000 + kv_cache_bytes(LLAMA, 4096)
    assert least < entry.memory_needed(4096) < least * 1.1
    assert ModelEntry("broken", Path("b.gguf"), size=7).memory_needed(4096) > 7


NUMBERS = st.integers(-(2**63), 2**64 - 1)
HOSTILE = NUMBERS | st.floats() | st.booleans() | st.text(max_size=5) | st.lists(NUMBERS | st.floats()).map(tuple)
KEYS = st.sampled_from(
    [
        "tokenizer.ggml.model",
        "tokenizer.chat_template",
        "general.type",
        "split.count",
        "clip.has_vision_encoder",
        *(
            f"llama.{key}"
            for key in (
                "block_count",
                "embedding_length",
                "full_attention_interval",
                "pooling_type",
                "attention.head_count",
                "attention.head_count_kv",
                "attention.key_length",
                "attention.value_length",
                "attention.key_length_mla",
                "attention.sliding_window",
                "attention.sliding_window_pattern",
            )
        ),
    ]
)


@given(st.dictionaries(KEYS, HOSTILE), st.integers(1, 10**7))
def test_whatever_a_header_says_it_is_understood(metadata: dict[str, Any], ctx_size: int) -> None:
    read = header(**metadata)
    assert kind_of(read) in Kind
    assert capabilities_of(read, read) <= set(Capability)
    assert why_unusable(read) is None or why_unusable(read)
    assert kv_cache_bytes(read, ctx_size) >= 0
