"""llama-cpp-python's own server, `python -m llama_cpp.server`.

It loads the model before it listens, so uvicorn's announcement says that it is ready. Its settings have names of their
own, and it also reads each of them from the environment (`HOST`, `MODEL`, `SEED` …), which a child of ours therefore
does not inherit. It works on one request at a time, and has no way to choose a pooling: of a chat model it would
return a vector for each token.

Three of its defaults are traps and always overridden: `interrupt_requests` ends a stream when another request comes in;
`logits_all` keeps the logits of the whole context, gigabytes with a large vocabulary; `use_mlock` pins the file in
memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.config import LoraAdapter, ModelSettings
from llamarunner.errors import ModelFailed
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.runtimes.build import Build, Option, arguments, own_flags, refusal
from llamarunner.fleet.runtimes.llama_server import DEFAULT_CONTEXT, ONLY_GENERATE, OURS

ANNOUNCES = re.compile(r"Uvicorn running on http://[^\s:]+:(?P<port>[1-9]\d*)")

GGML_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
ROPE_SCALINGS = {"none": 0, "linear": 1, "yarn": 2}
LAYERS = {"auto": -1, "all": -1}
LOAD_MODES = {
    "auto": (),
    "none": (("--use_mmap", "false"),),
    "mmap": (("--use_mmap", "true"),),
    "mlock": (("--use_mmap", "false"), ("--use_mlock", "true")),
    "mmap+mlock": (("--use_mmap", "true"), ("--use_mlock", "true")),
}

# Our setting → its flag, and how the value is written there.
SETTINGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "ctx_size": ("--n_ctx", int),
    "batch_size": ("--n_batch", int),
    "ubatch_size": ("--n_ubatch", int),
    "threads": ("--n_threads", int),
    "threads_batch": ("--n_threads_batch", int),
    "n_gpu_layers": ("--n_gpu_layers", lambda layers: LAYERS.get(layers, layers)),
    "kv_offload": ("--offload_kqv", lambda on: "true" if on else "false"),
    "main_gpu": ("--main_gpu", int),
    "split_mode": ("--split_mode", SPLIT_MODES.__getitem__),
    "flash_attn": ("--flash_attn", lambda switch: "true" if switch == "on" else "false"),
    "cache_type_k": ("--type_k", GGML_TYPES.__getitem__),
    "cache_type_v": ("--type_v", GGML_TYPES.__getitem__),
    "chat_template_kwargs": ("--chat_template_kwargs", lambda values: json.dumps(dict(values))),
    "rope_scaling": ("--rope_scaling_type", ROPE_SCALINGS.__getitem__),
    "rope_freq_base": ("--rope_freq_base", float),
    "rope_freq_scale": ("--rope_freq_scale", float),
    "yarn_orig_ctx": ("--yarn_orig_ctx", int),
    "yarn_ext_factor": ("--yarn_ext_factor", float),
    "yarn_attn_factor": ("--yarn_attn_factor", float),
    "yarn_beta_slow": ("--yarn_beta_slow", float),
    "yarn_beta_fast": ("--yarn_beta_fast", float),
}
# Settings that are about work in parallel, or the default here: left out with a warning, not refused.
WITHOUT_EFFECT = frozenset({"parallel", "kv_unified", "cache_ram", "cache_reuse", "jinja"})


def describe(entry: ModelEntry, settings: ModelSettings, task: Task, api_key: str, build: Build) -> Launch:
    """Describe how llama-cpp-python serves the model; raises ModelFailed if it lacks what settings or task need."""
    if task is Task.RERANK or (task is Task.EMBED and Capability.EMBEDDING not in entry.capabilities):
        raise ModelFailed(f"The runtime {build.kind} cannot {task} with this model; choose another.", retry_after=None)
    options = [*_fixed(entry, task), *_defaults(entry, settings, task, build), *_wanted(settings, task, build)]
    argv, warnings = arguments(options, build)
    ignored = [name for name in sorted(WITHOUT_EFFECT) if getattr(settings, name) is not None]
    return Launch(
        runtime=build.kind,
        argv=(*build.command, *argv, *own_flags(settings.extra_args or (), build)),
        announces=ANNOUNCES,
        api_key=api_key,
        env={**build.env, "API_KEY": api_key},
        warnings=warnings + tuple(f"{build.kind} has no {name}; left out" for name in ignored),
    )


def _fixed(entry: ModelEntry, task: Task) -> Iterator[Option]:
    yield Option("--model", (str(entry.path),), "model")
    yield Option("--model_alias", (entry.instance_id,))
    yield Option("--host", ("127.0.0.1",))
    yield Option("--port", ("0",))
    yield Option("--interrupt_requests", ("false",))
    yield Option("--logits_all", ("false",))
    if task is Task.EMBED:
        yield Option("--embedding", ("true",), "embeddings")


def _defaults(entry: ModelEntry, settings: ModelSettings, task: Task, build: Build) -> Iterator[Option]:
    if settings.ctx_size is None:
        yield Option("--n_ctx", (str(min(entry.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)),))
    if settings.n_gpu_layers is None:
        yield Option("--n_gpu_layers", ("-1",))
    if settings.load_mode is None:
        yield Option("--use_mlock", ("false",))
    if task is Task.GENERATE and (projector := settings.mmproj or entry.mmproj):
        yield Option("--clip_model_path", (str(projector),), "mmproj")
        yield Option("--chat_format", ("mtmd",), "mmproj")
    if task is Task.GENERATE and entry.adapters and settings.lora is None:
        yield from _lora(tuple(LoraAdapter(path=path) for path in entry.adapters), build)


def _wanted(settings: ModelSettings, task: Task, build: Build) -> Iterator[Option]:
    skipped = OURS | WITHOUT_EFFECT | ({"mmproj", "pooling"} if task is Task.GENERATE else ONLY_GENERATE)
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None or name in skipped:
            continue
        if name in SETTINGS:
            flag, written = SETTINGS[name]
            yield Option(flag, (str(written(value)),), name)
        elif name in COMPOSED:
            yield from COMPOSED[name](value, build)
        else:
            raise refusal(name, build)


def _load_mode(mode: str, build: Build) -> Iterator[Option]:
    if mode not in LOAD_MODES:
        raise refusal(f"load_mode: {mode}", build)
    for flag, value in LOAD_MODES[mode]:
        yield Option(flag, (value,), "load_mode")


def _lora(adapters: Any, build: Build) -> Iterator[Option]:
    if len(adapters) > 1 or adapters[0].scale != 1:
        raise refusal("lora (more than one adapter, or a scale)", build)
    yield Option("--lora_path", (str(adapters[0].path),), "lora")


def _tensor_split(shares: Any, build: Build) -> Iterator[Option]:
    yield Option("--tensor_split", tuple(str(share) for share in shares), "tensor_split")


COMPOSED: Mapping[str, Callable[[Any, Build], Iterator[Option]]] = {
    "load_mode": _load_mode,
    "lora": _lora,
    "tensor_split": _tensor_split,
}
