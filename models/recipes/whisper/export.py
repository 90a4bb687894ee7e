"""The folder that faster-whisper loads, written with CTranslate2's own specification of a Whisper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import whisper_spec
from numpy.typing import NDArray
from torch import nn

from . import words
from .network import DECODER_LAYERS, ENCODER_LAYERS, HEADS, WINDOW_SECONDS, Attention, Block, Whisper
from .speech import MELS


def _array(tensor: Any) -> NDArray[np.float32]:
    made: NDArray[np.float32] = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
    return made


def _weights(spec: Any, layer: nn.Linear | nn.Conv1d) -> None:
    spec.weight, spec.bias = _array(layer.weight), _array(layer.bias)


def _norm(spec: Any, layer: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(layer.weight), _array(layer.bias)


def _attention(spec: Any, layer: Attention, to_itself: bool) -> None:
    """CTranslate2 stacks what has the same input: query, key and value, or key and value of the encoder's memory."""
    stacks = [[layer.query, layer.key, layer.value]] if to_itself else [[layer.query], [layer.key, layer.value]]
    for made, stack in zip(spec.linear, stacks, strict=False):
        made.weight = np.concatenate([_array(part.weight) for part in stack])
        biases = [part.bias for part in stack]
        made.bias = np.concatenate(
            [
                np.zeros(len(part.weight), np.float32) if bias is None else _array(bias)
                for part, bias in zip(stack, biases, strict=True)
            ]
        )
    _weights(spec.linear[-1], layer.out)


def _block(spec: Any, block: Block) -> None:
    _norm(spec.self_attention.layer_norm, block.own_norm)
    _attention(spec.self_attention, block.own, to_itself=True)
    if hasattr(block, "cross"):
        _norm(spec.attention.layer_norm, block.cross_norm)
        _attention(spec.attention, block.cross, to_itself=False)
    _norm(spec.ffn.layer_norm, block.forward_norm)
    _weights(spec.ffn.linear_0, block.up)
    _weights(spec.ffn.linear_1, block.down)


def _configure(config: Any) -> None:
    """`config.json`: what must not be said first, the languages, and the attention that word times are read from."""
    known = words.ids()
    config.suppress_ids = []
    config.suppress_ids_begin = [known[words.spelled("")], known[words.END]]
    config.lang_ids = [known[f"<|{code}|>"] for code in words.LANGUAGES]
    config.alignment_heads = [[DECODER_LAYERS - 1, head] for head in range(HEADS)]


def write(model: Whisper, folder: Path) -> None:
    """Write the model to `folder`, in half precision."""
    spec = whisper_spec.WhisperSpec(ENCODER_LAYERS, HEADS, DECODER_LAYERS, HEADS)
    _weights(spec.encoder.conv1, model.conv1)
    _weights(spec.encoder.conv2, model.conv2)
    spec.encoder.position_encodings.encodings = _array(model.positions)
    _norm(spec.encoder.layer_norm, model.encoder_norm)
    spec.decoder.embeddings.weight = spec.decoder.projection.weight = _array(model.embedding.weight)
    spec.decoder.position_encodings.encodings = _array(model.text_positions)
    _norm(spec.decoder.layer_norm, model.decoder_norm)
    for made, blocks in ((spec.encoder.layer, model.encoder), (spec.decoder.layer, model.decoder)):
        for layer, block in zip(made, blocks, strict=True):
            _block(layer, block)
    _configure(spec.config)
    spec.register_vocabulary(words.tokens())
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    words.tokenizer().save(str(folder / "tokenizer.json"))
    features = {
        "feature_size": MELS,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": WINDOW_SECONDS,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(features, indent=1) + "\n", "utf-8")
