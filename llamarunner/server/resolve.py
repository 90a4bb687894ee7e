"""Which model a request means, and whether it can do what is asked."""

from __future__ import annotations

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.errors import InvalidRequest, ModelNotFound, ModelNotLoaded
from llamarunner.fleet.launch import Task
from llamarunner.server.services import View

_NEEDS: dict[Task, frozenset[Capability]] = {
    Task.GENERATE: frozenset({Capability.CHAT, Capability.COMPLETION}),
    Task.EMBED: frozenset({Capability.EMBEDDING, Capability.CHAT, Capability.COMPLETION}),
    Task.RERANK: frozenset({Capability.RERANK}),
}
_VERBS = {Task.GENERATE: "generate text", Task.EMBED: "make embeddings", Task.RERANK: "rerank"}


def resolve(view: View, document: dict[str, object], task: Task | None) -> tuple[ModelEntry, Task]:
    """Find the model of a request and what to start it for; no `task` means any that the model is made for.

    Without a `model` it is one that is made for this: the only one loaded, else the only one present, else the only one
    without a projector. Raises ModelNotFound, InvalidRequest for a model that cannot do this, or ModelNotLoaded for a
    broken file.
    """
    name = document.get("model")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest("'model' must be a string.", param="model")
    entry = view.find(name) if name else _only(view, task)
    if entry.error:
        raise ModelNotLoaded(f"The model '{entry.id}' cannot be used: {entry.error}.", param="model")
    task = task or native_task(entry)
    if not serves(entry, task):
        raise InvalidRequest(f"The model '{entry.id}' cannot {_VERBS[task]}.", param="model")
    return entry, task


def serves(entry: ModelEntry, task: Task) -> bool:
    """Tell whether a model can be started for a task; chat models can be asked for embeddings too."""
    return not _NEEDS[task].isdisjoint(entry.capabilities)


def native_task(entry: ModelEntry) -> Task:
    """What a model is made for."""
    return next((task for task in (Task.GENERATE, Task.RERANK) if serves(entry, task)), Task.EMBED)


def _only(view: View, task: Task | None) -> ModelEntry:
    able = [entry for entry in view.entries if task is None or serves(entry, task)]
    fit = [entry for entry in able if task is None or native_task(entry) is task] or able
    loaded = set(view.services.supervisor.loaded())
    plain = [entry for entry in fit if Capability.VISION not in entry.capabilities]
    for candidates in ([entry for entry in fit if entry.id in loaded], fit, plain):
        if len(candidates) == 1:
            return candidates[0]
    raise ModelNotFound("", tuple(entry.id for entry in fit))
