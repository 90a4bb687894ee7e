"""The trained network as GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), architecture `qwen3`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf

from .network import EPSILON, ROPE_BASE, Network, Shape
from .tokens import SPECIAL

TEMPLATE = Path(__file__).with_name("template.jinja")
QUANTIZATION = gguf.GGMLQuantizationType.Q8_0


def write(network: Network, tokenizer: Any, target: Path) -> None:
    """Write the file; matrices as Q8_0, vectors as they are."""
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_name("LlamaRunner demo chat")
    writer.add_size_label("1.8M")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, network.shape)
    _add_tokenizer(writer, tokenizer, network.shape.vocabulary)
    for name, weight in network.state_dict().items():
        values = weight.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, QUANTIZATION), raw_dtype=QUANTIZATION)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, size: int) -> None:
    learned = json.loads(tokenizer.to_str())
    by_id = {number: text for text, number in learned["model"]["vocab"].items()}
    added = {token["id"]: token["content"] for token in learned["added_tokens"]}
    tokens, kinds = [], []
    for number in range(size):
        if number in added:
            tokens.append(added[number])
            kinds.append(gguf.TokenType.CONTROL if added[number] in SPECIAL else gguf.TokenType.USER_DEFINED)
        else:
            tokens.append(by_id[number])
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in learned["model"]["merges"]])
    end, stop = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(stop)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text("utf-8"))
