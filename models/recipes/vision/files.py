"""The files: the chat model read from GGUF, the fine-tuned one and its projector written.

The projector is LLaVA's of llama.cpp (`tools/mtmd/clip.cpp`, type `mlp`) behind a tower that only measures. A picture
is scaled to fit a square of SIDE pixels, centred on llama.cpp's own grey-brown, and cut into four patches. The kernel
takes the mean colour of a few pixels in the middle of each, which lie within the picture unless it is more than 1.8
times as wide as high, or the reverse. llama.cpp skips the last block of a LLaVA tower: the one here is never run, but
has to be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from ..chat import tokens
from ..chat.network import Shape
from .network import CHANNELS, Projector, SeeingNetwork
from .pictures import PATCHES

SIDE = 48  # pixels
_PATCH = 24
_MIDDLE = slice(11, 13)
_FEED_FORWARD = 4  # must differ from CHANNELS: with the same, llama.cpp takes up and down for swapped
_QUANTIZATION = gguf.GGMLQuantizationType.Q8_0

Floats = NDArray[np.float32]


def read_network(chat: gguf.GGUFReader) -> SeeingNetwork:
    """The chat model, with a projector that knows nothing."""
    weights = {tensor.name: torch.tensor(_values(tensor)) for tensor in chat.tensors}
    key = f"{chat.fields['general.architecture'].contents()}.{{}}".format
    network = SeeingNetwork(
        Shape(
            vocabulary=weights["token_embd.weight"].shape[0],
            width=chat.fields[key("embedding_length")].contents(),
            layers=chat.fields[key("block_count")].contents(),
            heads=chat.fields[key("attention.head_count")].contents(),
            head=chat.fields[key("attention.key_length")].contents(),
            feed_forward=chat.fields[key("feed_forward_length")].contents(),
            context=chat.fields[key("context_length")].contents(),
        )
    )
    network.language.load_state_dict(weights)
    return network


def _values(tensor: gguf.ReaderTensor) -> Floats:
    values: Floats = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return values.reshape(tuple(reversed(tensor.shape.tolist())))


def read_tokenizer(chat: gguf.GGUFReader) -> Any:
    """Its tokenizer, a `tokenizers.Tokenizer`."""
    pieces = chat.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in chat.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(tokens.WORDS), "isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens.SPECIAL)
    tokenizer.add_tokens(tokens.MARKS)
    return tokenizer


def write_network(network: SeeingNetwork, chat: gguf.GGUFReader, target: Path) -> None:
    """Write the language model with all that the chat model's file says, but for the name."""
    writer = gguf.GGUFWriter(target, chat.fields["general.architecture"].contents())
    for name, known in chat.fields.items():
        if name == "general.name":
            writer.add_name("LlamaRunner demo vision")
        elif not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = known.types[-1] if known.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, known.contents(), known.types[0], sub_type)
    for name, weight in network.language.state_dict().items():
        values = weight.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, _QUANTIZATION), raw_dtype=_QUANTIZATION)
    _finish(writer)


def write_projector(projector: Projector, width: int, target: Path) -> None:
    """Write the tower and the projector, all in full precision."""
    writer = gguf.GGUFWriter(target, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("LlamaRunner demo vision")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_image_size(SIDE)
    writer.add_vision_patch_size(_PATCH)
    writer.add_vision_embedding_length(CHANNELS)
    writer.add_vision_feed_forward_length(_FEED_FORWARD)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(1)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_use_gelu(True)
    writer.add_vision_projection_dim(width)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])  # so that colours go from -1 to 1
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    first, second = projector.first, projector.second
    layers = {
        "mm.0.weight": first.weight,
        "mm.0.bias": first.bias,
        "mm.2.weight": second.weight,
        "mm.2.bias": second.bias,
    }
    for name, weight in layers.items():
        writer.add_tensor(name, weight.detach().float().numpy())
    for name, values in _tower().items():
        writer.add_tensor(name, values)
    _finish(writer)


def _tower() -> dict[str, Floats]:
    """The kernel (feature, channel, row, column), and what else llama.cpp asks for: zeros."""
    kernel = np.zeros((CHANNELS, CHANNELS, _PATCH, _PATCH), np.float32)
    for channel in range(CHANNELS):
        kernel[channel, channel, _MIDDLE, _MIDDLE] = 1 / 4
    square, narrow = (CHANNELS, CHANNELS), (CHANNELS,)
    shapes: dict[str, tuple[int, ...]] = {"v.position_embd.weight": (PATCHES, CHANNELS)}
    shapes |= {f"v.blk.0.attn_{part}.weight": square for part in ("q", "k", "v", "out")}
    shapes |= {f"v.blk.0.ln{number}.{part}": narrow for number in (1, 2) for part in ("weight", "bias")}
    shapes |= {"v.blk.0.ffn_up.weight": (_FEED_FORWARD, CHANNELS), "v.blk.0.ffn_down.weight": (CHANNELS, _FEED_FORWARD)}
    return {"v.patch_embd.weight": kernel} | {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
