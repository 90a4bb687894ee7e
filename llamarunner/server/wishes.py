"""How a model is to be run by what Ollama's options say: those of a request, or those that the model brings along."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import ValidationError

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.dialects.ollama.errors import WrongOption
from llamarunner.dialects.ollama.options import LOADING, loading
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import AS_IT_IS, Manner
from llamarunner.fleet.runtimes.llama_server import DEFAULT_SLOTS
from llamarunner.server.services import View

LEAST_CONTEXT = 4  # tokens


def wished(view: View, entry: ModelEntry, task: Task, options: Mapping[str, object]) -> ModelSettings:
    """The settings that Ollama's options ask for. Raises WrongOption."""
    wanted = loading(options)
    settings = view.services.settings.for_model(entry.id)
    if tokens := wanted.get("ctx_size"):
        tokens = max(LEAST_CONTEXT, min(tokens, entry.context_length or tokens))
        wanted["ctx_size"] = tokens * (1 if settings.kv_unified is not False else settings.parallel or DEFAULT_SLOTS)
    if rows := wanted.get("batch_size"):
        wanted["batch_size"] = max(rows, settings.parallel or DEFAULT_SLOTS)  # a row for each slot, or llama.cpp aborts
    if threads := wanted.get("threads"):
        wanted["threads"] = min(threads, os.cpu_count() or threads)  # with more, all who share the model crawl
    if settings.model_draft is None or task is not Task.GENERATE:
        wanted.pop("spec_draft_n_max", None)
    try:
        return ModelSettings.model_validate(wanted)
    except ValidationError as error:
        raise _out_of_range(str(error.errors()[0]["loc"][0])) from None


def own_manner(view: View, entry: ModelEntry, task: Task) -> Manner:
    """How a model is run for a request that cannot say: as its own options have it, unless it was started by hand."""
    unit = view.services.supervisor.unit(entry, task)
    if not entry.preset.parameters or (unit is not None and unit.kept):
        return AS_IT_IS
    wanted = wished(view, entry, task, entry.preset.parameters)
    return Manner(wanted) if wanted.model_fields_set else AS_IT_IS


def _out_of_range(setting: str) -> WrongOption:
    option = next(name for name, one in LOADING.items() if one.name == setting)
    return WrongOption(f'option "{option}" is out of range', param=f"options.{option}")
