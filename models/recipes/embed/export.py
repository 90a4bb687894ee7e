"""The trained encoder as a GGUF file of llama.cpp's architecture `bert`, its matrices in Q8_0."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize

from . import encoder as shape
from . import wordpiece
from .encoder import Encoder

_NORMS = {"after_attention": "attn_output_norm", "after_feed_forward": "layer_output_norm"}
_MATRICES = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "up": "ffn_up",
    "down": "ffn_down",
}


def write(path: Path, encoder: Encoder, pieces: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "bert")
    _add_metadata(writer)
    _add_tokenizer(writer, pieces)
    for name, values in _tensors(encoder):
        if values.ndim == 1 or name == "token_types.weight":
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_name("LlamaRunner demo embed")
    writer.add_description("Embeds sentences of a small domain: requests, questions and their answers")
    writer.add_license("mit")
    writer.add_size_label("1.3M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(shape.CONTEXT)
    writer.add_embedding_length(shape.WIDTH)
    writer.add_feed_forward_length(shape.INNER)
    writer.add_block_count(shape.LAYERS)
    writer.add_head_count(shape.HEADS)
    writer.add_layer_norm_eps(shape.NORM_EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: tuple[str, ...]) -> None:
    """llama.cpp puts [CLS] and [SEP] around a text of the kind `bert` by itself."""
    special = len(wordpiece.SPECIAL)
    types = [gguf.TokenType.CONTROL] * special + [gguf.TokenType.NORMAL] * (len(pieces) - special)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(pieces))
    writer.add_token_types(types)
    writer.add_token_type_count(1)
    writer.add_pad_token_id(wordpiece.PAD)
    writer.add_unk_token_id(wordpiece.UNKNOWN)
    writer.add_bos_token_id(wordpiece.BEGIN)
    writer.add_sep_token_id(wordpiece.END)
    writer.add_mask_token_id(wordpiece.MASK)


def _tensors(encoder: Encoder) -> list[tuple[str, np.ndarray]]:
    """Pairs of name and float32 values, under llama.cpp's names."""
    state = {name: values.detach().numpy() for name, values in encoder.state_dict().items()}
    tensors = [
        ("token_embd.weight", state["tokens.weight"]),
        ("position_embd.weight", state["positions"]),
        ("token_types.weight", np.zeros((1, shape.WIDTH), np.float32)),  # all text is of one type, which says nothing
    ]
    tensors += [(f"token_embd_norm.{part}", state[f"norm.{part}"]) for part in ("weight", "bias")]
    for layer in range(shape.LAYERS):
        for ours, theirs in {**_MATRICES, **_NORMS}.items():
            tensors += [
                (f"blk.{layer}.{theirs}.{part}", state[f"layers.{layer}.{ours}.{part}"]) for part in ("weight", "bias")
            ]
    return tensors
