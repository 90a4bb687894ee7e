"""What the supervisor keeps of each unit, and what settings say about a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamarunner.catalog import ModelEntry
from llamarunner.config import LIFE, ModelSettings, Settings
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Instance
from llamarunner.fleet.runtimes.llama_server import context_size
from llamarunner.fleet.unit import Rules

# What a caller may wish otherwise; `start` can override all settings.
WISHABLE = ("ctx_size", "batch_size", "n_gpu_layers", "main_gpu", "load_mode", "threads", "spec_draft_n_max")


@dataclass(slots=True)
class Subject:
    """What the supervisor knows of a unit, running or not."""

    entry: ModelEntry
    task: Task
    overrides: ModelSettings | None = None  # go over the settings, until the unit is unloaded
    ttl: float | None = None  # goes over that of the settings, until then too; infinity is for ever
    used_at: float | None = None  # time.time() at which a lease was given back last


def runs(entry: ModelEntry, settings: ModelSettings) -> Mapping[str, object]:
    """How a process with these settings runs, as far as it can be wished otherwise."""
    mapped = settings.load_mode in (None, "auto", "mmap", "mmap+mlock")
    shared = context_size(entry, settings)
    one_request = min(shared, entry.context_length or shared)  # of which there are more where slots share more
    said = {"ctx_size": one_request, "load_mode": "mmap" if mapped else settings.load_mode}
    return {name: getattr(settings, name) for name in WISHABLE} | said


def rules_of(settings: Settings) -> Rules:
    chosen = settings.supervisor
    return Rules(
        max_loaded=chosen.max_loaded_models,
        queue_length=chosen.queue_length,
        queue_timeout=chosen.queue_timeout_seconds,
        patience=chosen.patience_seconds,
        only_last_jit=chosen.only_last_jit_model,
    )


def changed(before: Settings, after: Settings, instance: Instance) -> bool:
    """Whether other settings run an instance otherwise."""
    model = instance.entry.id
    hears = instance.task is Task.TRANSCRIBE
    program = [of.audio.for_model(model) if hears else of.runtime for of in (before, after)]
    return program[0] != program[1] or before.for_model(model) != after.for_model(model)


def of_process(settings: ModelSettings) -> ModelSettings:
    """The settings that a process is started with, without those about when it ends."""
    return settings.model_copy(update=dict.fromkeys(LIFE))


def file_of(entry: ModelEntry) -> tuple[object, ...]:
    """What changes when a model's file is replaced."""
    return entry.path, entry.size, entry.stamps, entry.adapters, entry.mmproj


def unit_name(entry: ModelEntry, task: Task) -> str:
    """Name the unit of an instance for a task; no id of a model has a space, so no two units share a name."""
    beside = [f"instance {entry.instance}"] if entry.instance > 1 else []
    told = ", ".join(beside if task is Task.GENERATE else [*beside, task])
    return f"{entry.id} ({told})" if told else entry.id
