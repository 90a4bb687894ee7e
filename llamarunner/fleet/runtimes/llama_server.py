"""llama-server, and every program that speaks its flags: `llamarunner.workers.llama_server` is the second one.

What is always passed, and why:

* `--host 127.0.0.1 --port 0`: the kernel picks a free port and the child says which.
* `LLAMA_API_KEY` in the environment, not in the arguments, which every user of the machine can read.
* `--ctx-size` of the model's own length for each slot, at most 8192 tokens in all, with `--kv-unified` and
  `--parallel 4`: the context is one pool for all slots, so a single request may use all that the model was trained
  for, and four short ones share it.
  An explicit size is also one that llama.cpp does not shrink in silence to fit the memory (`--fit`).
* `--spec-type draft-simple` with a draft model: newer builds load the draft and never ask it without.
* `--cache-ram 512` (MiB): left alone, the prompt cache of each child grows to 8 GiB. Embeddings have no use for it.
* `--threads 1` with a model below 32 MiB: more would wait for each other longer than they compute, and they wait
  spinning, which on a busy machine costs up to a second a token.
* `--jinja`: tools need it, and older builds have it off. `--no-ui`, `--offline`, `--metrics`, `--alias`.

A setting bears the flag's name, so most need no table. None of ours is passed to a build that does not know it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.config import LoraAdapter, ModelSettings
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.runtimes.build import Build, Option, arguments, own_flags

DEFAULT_CONTEXT = 8192
DEFAULT_SLOTS = 4
DEFAULT_CACHE_MIB = 512
RERANK_BATCH = 2048
ONE_THREAD_BYTES = 32 << 20

# The wordings of several years; the oldest says it before the model is loaded, so /health has the last word.
ANNOUNCES = re.compile(r"listening(?: on http://[^\s:]+:|, hostname: [^,]+, port: )(?P<port>[1-9]\d*)")

OURS = frozenset({"extra_args", "runtime", "ttl_seconds", "pinned"})
ONLY_GENERATE = frozenset({"mmproj", "model_draft", "n_gpu_layers_draft", "spec_draft_n_max", "cache_reuse"})
# Architectures that read the text in both directions: one input must fit into one physical batch.
ENCODER = re.compile(r"bert|embed|encoder", re.I)

# Builds that do not know --load-mode say the same with older flags.
OLD_LOAD_MODES = {"mmap": (), "auto": (), "none": ("--no-mmap",), "mlock": ("--mlock",), "mmap+mlock": ("--mlock",)}


def describe(entry: ModelEntry, settings: ModelSettings, task: Task, api_key: str, build: Build) -> Launch:
    """Describe how the native llama-server serves the model; raises ModelFailed if it lacks what a setting needs."""
    argv, warnings = command_line(entry, settings, task, build)
    return Launch(
        runtime=build.kind,
        argv=argv,
        announces=ANNOUNCES,
        health="/health",
        api_key=api_key,
        env={**build.env, "LLAMA_API_KEY": api_key},
        warnings=warnings,
    )


def command_line(
    entry: ModelEntry, settings: ModelSettings, task: Task, build: Build
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    options = [*_fixed(entry, task), *_defaults(entry, settings, task), *_wanted(settings, task, build)]
    if task is Task.GENERATE and _speculates(settings, build):
        options.append(Option("--spec-type", ("draft-simple",)))
    argv, warnings = arguments(options, build)
    return (*build.command, *argv, *own_flags(settings.extra_args or (), build)), warnings


def context_size(entry: ModelEntry, settings: ModelSettings, task: Task = Task.GENERATE) -> int:
    """The tokens that all slots of an instance share; a setting of 0 asks for all that the model was trained for."""
    own = entry.context_length or DEFAULT_CONTEXT
    if settings.ctx_size is not None:
        return settings.ctx_size or own
    slots = settings.parallel or DEFAULT_SLOTS
    return min(own * slots if task is Task.GENERATE else own, DEFAULT_CONTEXT)


def _fixed(entry: ModelEntry, task: Task) -> Iterator[Option]:
    yield Option("--model", (str(entry.path),))
    yield Option("--alias", (entry.instance_id,))
    yield Option("--host", ("127.0.0.1",))
    yield Option("--port", ("0",))
    for switch in ("--no-ui", "--metrics", "--offline"):
        yield Option(switch)
    if task is Task.EMBED:
        yield Option("--embeddings", wanted="embeddings")
    if task is Task.RERANK:
        yield Option("--reranking", wanted="reranking")


def _speculates(settings: ModelSettings, build: Build) -> bool:
    named = "--spec-type" in (settings.extra_args or ())
    return settings.model_draft is not None and not named and build.spelling("--spec-type") is not None


def _defaults(entry: ModelEntry, settings: ModelSettings, task: Task) -> Iterator[Option]:
    """What we choose where the person has not."""
    for name, value in _chosen(entry, settings, task).items():
        if value is not None and getattr(settings, name) is None:
            yield from _option(name, value, wanted=None)


def _chosen(entry: ModelEntry, settings: ModelSettings, task: Task) -> dict[str, Any]:
    context = context_size(entry, settings, task)
    chosen: dict[str, Any] = {"ctx_size": context, "parallel": DEFAULT_SLOTS, "kv_unified": True, "jinja": True}
    chosen["threads"] = 1 if entry.size < ONE_THREAD_BYTES else None
    if task is Task.GENERATE:
        lora = tuple(LoraAdapter(path=path) for path in entry.adapters) or None
        return chosen | {"cache_ram": DEFAULT_CACHE_MIB, "mmproj": entry.mmproj, "lora": lora}
    batch = _whole_batch(entry, task, context)
    return chosen | {"cache_ram": 0, "batch_size": batch, "ubatch_size": batch, "pooling": _pooling(entry, task)}


def _whole_batch(entry: ModelEntry, task: Task, context: int) -> int | None:
    """The physical batch, where an input must fit into one; a larger batch takes more memory, so otherwise it stays."""
    if ENCODER.search(entry.architecture or ""):
        return context
    return min(context, RERANK_BATCH) if task is Task.RERANK else None


def _pooling(entry: ModelEntry, task: Task) -> str | None:
    """How a chat model embeds: by its last token, the only one that has seen the whole text.

    It is also the one pooling for which llama.cpp splits a long input over batches. An embedding model knows its own.
    """
    return "last" if task is Task.EMBED and Capability.EMBEDDING not in entry.capabilities else None


def _wanted(settings: ModelSettings, task: Task, build: Build) -> Iterator[Option]:
    skipped = OURS if task is Task.GENERATE else OURS | ONLY_GENERATE
    if task is not Task.EMBED:
        skipped |= {"pooling"}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None or name in skipped:
            continue
        if name == "load_mode" and not build.spelling("--load-mode") and value in OLD_LOAD_MODES:
            yield from (Option(flag, wanted=name) for flag in OLD_LOAD_MODES[value])
        else:
            yield from _option(name, value, wanted=name)


def _option(name: str, value: Any, wanted: str | None) -> Iterator[Option]:
    flag = "--" + name.replace("_", "-")
    if value is False:
        yield Option(flag.replace("--", "--no-", 1))
    elif value is True:
        yield Option(flag, wanted=wanted)
    elif name == "lora":
        yield from _adapters(value)
    else:
        yield Option(flag, (_text(value),), wanted)


def _adapters(adapters: tuple[LoraAdapter, ...]) -> Iterator[Option]:
    plain = [_quoted(str(adapter.path)) for adapter in adapters if adapter.scale == 1]
    scaled = [_quoted(f"{adapter.path}:{adapter.scale}") for adapter in adapters if adapter.scale != 1]
    if plain:
        yield Option("--lora", (",".join(plain),), "lora")
    if scaled:
        yield Option("--lora-scaled", (",".join(scaled),), "lora")


def _quoted(item: str) -> str:
    """Quote an item of a list, as llama.cpp reads them, if it holds a comma or a quotation mark."""
    return '"' + item.replace('"', '""') + '"' if set(item) & set(',"') else item


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(item) for item in value)
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    return str(value)
