"""The `options` of a request: those for sampling, in llama.cpp's words, and those that a process is started with.

Values of the wrong type are refused; unknown keys, and those that Ollama has dropped, are left alone, as it does.
A number that should be whole may come as a float, and null means that it was not given.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamarunner.dialects.ollama.errors import WrongOption


@dataclass(frozen=True, slots=True)
class Option:
    """How one option is called by llama.cpp, and which type it has."""

    kind: type
    name: str
    default: object = None  # sent if the request does not say


SAMPLING: Mapping[str, Option] = {
    "num_keep": Option(int, "n_keep", 4),
    "seed": Option(int, "seed"),
    "num_predict": Option(int, "n_predict"),
    "top_k": Option(int, "top_k", 40),
    "top_p": Option(float, "top_p", 0.9),
    "min_p": Option(float, "min_p", 0.0),
    "typical_p": Option(float, "typical_p", 1.0),
    "repeat_last_n": Option(int, "repeat_last_n", 64),
    "temperature": Option(float, "temperature", 0.8),
    "repeat_penalty": Option(float, "repeat_penalty", 1.0),
    "presence_penalty": Option(float, "presence_penalty", 0.0),
    "frequency_penalty": Option(float, "frequency_penalty", 0.0),
    "stop": Option(list, "stop"),
}
LOADING: Mapping[str, Option] = {
    "num_ctx": Option(int, "ctx_size"),
    "num_batch": Option(int, "batch_size"),
    "num_gpu": Option(int, "n_gpu_layers"),
    "main_gpu": Option(int, "main_gpu"),
    "num_thread": Option(int, "threads"),
    "use_mmap": Option(bool, "load_mode"),
    "draft_num_predict": Option(int, "spec_draft_n_max"),
}
_GO_NAMES = {int: "integer", float: "float32", bool: "boolean", list: "array"}
LARGEST = sys.float_info.max  # integers may be larger, and are no float then
LONGEST = 10  # times the context: what an answer without a limit is limited to


def sampling(options: Mapping[str, object], context: int) -> dict[str, object]:
    """The fields of llama.cpp's request, for a model with so many tokens of context. Raises WrongOption."""
    fields = {one.name: one.default for one in SAMPLING.values() if one.default is not None}
    fields |= _chosen(options, SAMPLING)
    wanted = fields.get("n_predict", -1)
    if not isinstance(wanted, int) or not 0 <= wanted <= LONGEST * context:
        fields["n_predict"] = LONGEST * context
    return fields


def given(options: Mapping[str, object]) -> dict[str, object]:
    """Those fields of llama.cpp's request that the options name, without defaults. Raises WrongOption."""
    fields = _chosen(options, SAMPLING)
    if fields.get("n_predict", 0) < 0:
        del fields["n_predict"]
    return fields


def loading(options: Mapping[str, object]) -> dict[str, Any]:
    """The settings of a model that a request asks for; what means "as you like" is left out. Raises WrongOption."""
    chosen = _chosen(options, LOADING)
    if "load_mode" in chosen:
        chosen["load_mode"] = "mmap" if chosen["load_mode"] else "none"
    if chosen.get("ctx_size", 1) <= 0:
        del chosen["ctx_size"]
    for name in ("n_gpu_layers", "threads", "spec_draft_n_max", "batch_size", "main_gpu"):
        least = 1 if name in ("threads", "batch_size") else 0
        if chosen.get(name, least) < least:
            del chosen[name]
    return chosen


def _chosen(options: Mapping[str, object], table: Mapping[str, Option]) -> dict[str, Any]:
    return {one.name: _typed(key, options[key], one.kind) for key, one in table.items() if options.get(key) is not None}


def _typed(key: str, value: object, kind: type) -> object:
    if kind is list:
        if not isinstance(value, list):
            raise _wrong(key, kind)
        if not all(isinstance(text, str) for text in value):
            raise WrongOption(f'option "{key}" must be of an array of strings', param=f"options.{key}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(key, kind)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= abs(value) <= LARGEST:
        raise _wrong(key, kind)
    return kind(value)


def _wrong(key: str, kind: type) -> WrongOption:
    return WrongOption(f'option "{key}" must be of type {_GO_NAMES[kind]}', param=f"options.{key}")
