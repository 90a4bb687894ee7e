"""Writes small GGUF files for tests, with the format's own library, so that our reader is not tested against itself.

`python tests/programs/write_gguf.py embedding OUT.gguf` writes the embedding model.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

EMBEDDING_LENGTH = 64
EMBEDDING_CONTEXT_LENGTH = 512
_FEED_FORWARD_LENGTH = 128
_LAYERS = 2
_WORDS = ("hello", "world", "the", "a", "cat", "dog", "sat", "on", "mat", "query", "document", "red", "green", "blue")
_ONE_TENSOR = {"token_embd.weight": np.zeros((4, 32), dtype=np.float32)}
CHAT_TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"


def write_model(
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    architecture: str = "llama",
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a file that looks like a chat model; `metadata` overrides, and None takes a key away."""
    defaults = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.chat_template": CHAT_TEMPLATE,
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": 32,
    }
    return write_gguf(path, architecture, {**defaults, **(metadata or {})}, _ONE_TENSOR if tensors is None else tensors)


def write_projector(path: Path, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a file that looks like the vision part of a model."""
    return write_gguf(path, "clip", {"clip.has_vision_encoder": True, **(metadata or {})}, _ONE_TENSOR)


def write_gguf(
    path: Path, architecture: str | None, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture or "")
    for key, value in metadata.items():
        if value is not None:
            writer.add_key_value(key, value, _value_type(value))
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _value_type(value: Any) -> gguf.GGUFValueType:
    if isinstance(value, int) and not isinstance(value, bool):
        return gguf.GGUFValueType.UINT32
    return gguf.GGUFValueType.get_type(value)


def write_embedding_model(path: Path, seed: int = 7) -> Path:
    """Write a BERT of random weights with mean pooling, about 400 KB, that llama.cpp loads and embeds with."""
    tokens = _wordpieces()
    metadata = {
        "general.name": "Tiny random embedder",
        "general.file_type": int(gguf.LlamaFileType.ALL_F32),
        "bert.context_length": EMBEDDING_CONTEXT_LENGTH,
        "bert.embedding_length": EMBEDDING_LENGTH,
        "bert.feed_forward_length": _FEED_FORWARD_LENGTH,
        "bert.block_count": _LAYERS,
        "bert.attention.head_count": 4,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": int(gguf.PoolingType.MEAN),
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token.startswith("[") else 1 for token in tokens],
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,  # llama.cpp spells it so
        "tokenizer.ggml.mask_token_id": 4,
    }
    return write_gguf(path, "bert", metadata, _bert_tensors(len(tokens), np.random.default_rng(seed)))


def _wordpieces() -> list[str]:
    """Return a vocabulary that spells every ASCII word; "▁" begins a word, as converters write it."""
    letters = string.ascii_lowercase + string.digits
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    begins = [f"▁{piece}" for piece in (*letters, *string.punctuation, *_WORDS)]
    return list(dict.fromkeys([*special, *begins, *letters]))


def _bert_tensors(vocabulary: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    wide, inner = EMBEDDING_LENGTH, _FEED_FORWARD_LENGTH
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, wide),
        "position_embd.weight": (EMBEDDING_CONTEXT_LENGTH, wide),
        "token_types.weight": (2, wide),
        **_with_bias("token_embd_norm", (wide,)),
    }
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= _with_bias(f"blk.{layer}.{name}", (wide, wide))
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= _with_bias(f"blk.{layer}.{name}", (wide,))
        shapes |= _with_bias(f"blk.{layer}.ffn_up", (inner, wide))
        shapes |= _with_bias(f"blk.{layer}.ffn_down", (wide, inner))
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _with_bias(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


if __name__ == "__main__":
    _, kind, out = sys.argv
    {"embedding": write_embedding_model, "chat": write_model}[kind](Path(out))
