"""Instances of models as LM Studio has them: which there are, how each runs, and loading one more.

loaded = await load(view, entry, overrides_of(view, entry, wanted))
loaded.entry.instance_id        → key, or key:2, key:3 …
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.dialects.lmstudio import described
from llamarunner.dialects.lmstudio.errors import InvalidValue
from llamarunner.dialects.lmstudio.managing import LoadRequest
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Instance
from llamarunner.fleet.runtimes.llama_server import DEFAULT_SLOTS, context_size
from llamarunner.fleet.unit import State
from llamarunner.server.resolve import native_task
from llamarunner.server.services import Services, View

LEAST_CONTEXT = 4  # tokens


@dataclass(frozen=True, slots=True)
class Loaded:
    """A new instance; its entry bears its number."""

    entry: ModelEntry
    seconds: float  # that the load took, waiting for room included
    config: described.Config


async def load(view: View, entry: ModelEntry, overrides: ModelSettings | None = None) -> Loaded:
    """Load one more instance of a model, which stays until it is unloaded; `ttl_seconds` of the overrides change that.

    Who leaves meanwhile has never learned the instance's name, so it is unloaded again. Raises ModelNotLoaded for a
    broken file, or as `Supervisor.lease`.
    """
    supervisor, began = view.services.supervisor, time.monotonic()
    meant = view.another(entry)
    try:
        instance = await supervisor.start(meant, native_task(meant), overrides)
        config = await config_of(view.services, instance)
    except BaseException:
        supervisor.let_go(meant, alone=True)
        raise
    return Loaded(meant, time.monotonic() - began, config)


def overrides_of(view: View, entry: ModelEntry, wanted: LoadRequest) -> ModelSettings | None:
    """Say in the settings' words how an instance is to run; None if as usual. Raises InvalidValue.

    No request gets more context than the model was trained for.
    """
    settings = view.services.settings.for_model(entry.id)
    chosen: dict[str, object] = {}
    if wanted.context_length is not None:
        chosen["ctx_size"] = context_for(entry, settings, wanted.context_length)
    if wanted.eval_batch_size is not None:
        chosen["batch_size"] = wanted.eval_batch_size
    if wanted.flash_attention is not None:
        chosen["flash_attn"] = "on" if wanted.flash_attention else "off"
    if wanted.offload_kv_cache_to_gpu is False or (wanted.offload_kv_cache_to_gpu and settings.kv_offload is False):
        chosen["kv_offload"] = wanted.offload_kv_cache_to_gpu
    if wanted.num_experts is not None and (rule := _experts(entry, wanted.num_experts)):
        chosen["override_kv"] = (*(settings.override_kv or ()), rule)
    return ModelSettings.model_validate(chosen) if chosen else None


def context_for(entry: ModelEntry, settings: ModelSettings, tokens: int) -> int:
    """The context that all slots share, so that one request can have so many tokens."""
    tokens = max(LEAST_CONTEXT, min(tokens, entry.context_length or tokens))
    return tokens * (1 if settings.kv_unified is not False else settings.parallel or DEFAULT_SLOTS)


def _experts(entry: ModelEntry, number: int) -> str | None:
    most = entry.header.detail("expert_count") if entry.header else None
    if most and number > most:
        raise InvalidValue(f"'num_experts' is wrong: the model has {most} experts.", param="num_experts")
    return described.experts_rule(entry, number)


async def config_of(services: Services, instance: Instance) -> described.Config:
    """Tell how an instance runs that is ready."""
    entry, settings = instance.entry, instance.settings
    assert instance.endpoint
    granted = await services.figures.granted(instance.endpoint)
    shared = context_size(entry, settings, instance.task)
    shared = granted.context_length or shared
    context = min(shared, entry.context_length or shared)
    return described.config(entry, settings, context, granted.slots or settings.parallel or DEFAULT_SLOTS)


def ready(view: View, entry: ModelEntry) -> list[Instance]:
    """The instances of a model that are ready to use, by number; of several processes the one it is made for."""
    found: dict[int, Instance] = {}
    for instance in view.services.supervisor.ready():
        number = instance.entry.instance
        if instance.entry.id == entry.id and (number not in found or instance.task is native_task(entry)):
            found[number] = instance
    return [found[number] for number in sorted(found)]


def is_loading(view: View, entry: ModelEntry) -> bool:
    """Tell whether somebody waits for the instance that the entry means."""
    units = (view.services.supervisor.unit(entry, task) for task in Task)
    return any(unit is not None and (unit.state is State.LOADING or bool(unit.waiting)) for unit in units)
