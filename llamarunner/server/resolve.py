"""Which model a request means, and whether it can do what is asked."""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.catalog.speech import how_to_get, size_of
from llamarunner.errors import InvalidRequest, ModelNotFound, ModelNotLoaded, SpeechModelNotFound
from llamarunner.fleet.launch import Task
from llamarunner.fleet.unit import State
from llamarunner.server.services import View

ANY_SPEECH = frozenset({"whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"})  # what OpenAI's clients ask for
_NEEDS: dict[Task, frozenset[Capability]] = {
    Task.GENERATE: frozenset({Capability.CHAT, Capability.COMPLETION}),
    Task.EMBED: frozenset({Capability.EMBEDDING, Capability.CHAT, Capability.COMPLETION}),
    Task.RERANK: frozenset({Capability.RERANK}),
    Task.TRANSCRIBE: frozenset({Capability.TRANSCRIPTION}),
}
_VERBS: dict[Task | None, str] = {
    None: "work with text",
    Task.GENERATE: "generate text",
    Task.EMBED: "make embeddings",
    Task.RERANK: "rerank",
    Task.TRANSCRIBE: "transcribe audio",
}


def resolve(view: View, document: Mapping[str, object], task: Task | None) -> tuple[ModelEntry, Task]:
    """Find the model of a request and what to start it for; no `task` means any that the model is made for,
    but for speech models, which know no text.

    Without a `model` it is one that is made for this: the only one loaded, else the only one present, else the only one
    without a projector. Raises ModelNotFound, InvalidRequest for a model that cannot do this, or ModelNotLoaded for a
    broken file.
    """
    name = document.get("model")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest("'model' must be a string.", param="model")
    return able(view.find(name) if name else _only(view, task), task)


def able(entry: ModelEntry, task: Task | None) -> tuple[ModelEntry, Task]:
    """Tell what to start a model for; no `task` means what it is made for.

    Raises InvalidRequest for a model that cannot do this, or ModelNotLoaded for a broken file.
    """
    if entry.error:
        raise ModelNotLoaded(f"The model '{entry.id}' cannot be used: {entry.error}.", param="model")
    if not _can(entry, task):
        raise InvalidRequest(f"The model '{entry.id}' cannot {_VERBS[task]}.", param="model")
    return entry, task or native_task(entry)


def resolve_speech(view: View, name: str, task: str) -> ModelEntry:
    """Find the model for a recording; one of OpenAI's names that no model has means the one of the settings, or any.

    Raises ModelNotFound, at once and with the way to get a model that is known and not here, or as `resolve` does.
    """
    try:
        entry, _ = resolve(view, {"model": _meant(view, name)}, Task.TRANSCRIBE)
    except ModelNotFound:
        known = tuple(entry.id for entry in view.entries if serves(entry, Task.TRANSCRIBE))
        raise SpeechModelNotFound(name[:200], known, how_to_get(name)) from None
    if task == "translate" and _only_transcribes(entry):
        raise InvalidRequest(f"The model '{entry.id}' was not trained to translate; use another size.", param="model")
    return entry


def _meant(view: View, name: str) -> str:
    if name.casefold() not in ANY_SPEECH:
        return name
    try:
        return view.find(name).id
    except ModelNotFound:
        return view.services.settings.audio.default_model or _usual_speech(view) or name


def _usual_speech(view: View) -> str | None:
    """Of the speech models one that did not fail, if there is one: best one that is loaded, else of a known size."""
    supervisor = view.services.supervisor

    def rank(entry: ModelEntry) -> tuple[bool, bool, bool]:
        unit = supervisor.unit(entry, Task.TRANSCRIBE)
        failed = unit is not None and unit.state is State.ERROR
        return failed, entry.id not in loaded, size_of(entry.id) is None

    loaded = supervisor.loaded()
    able = [entry for entry in view.entries if serves(entry, Task.TRANSCRIBE)]
    return min(able, key=rank).id if able else None


def _only_transcribes(entry: ModelEntry) -> bool:
    size = size_of(entry.id) or ""
    return size.endswith(("-turbo", ".en")) or size.startswith("distil-")


def serves(entry: ModelEntry, task: Task) -> bool:
    """Tell whether a model can be started for a task; chat models can be asked for embeddings too."""
    return not _NEEDS[task].isdisjoint(entry.capabilities)


def _can(entry: ModelEntry, task: Task | None) -> bool:
    return serves(entry, task) if task else native_task(entry) is not Task.TRANSCRIBE


def native_task(entry: ModelEntry) -> Task:
    """What a model is made for."""
    return next((task for task in (Task.GENERATE, Task.RERANK, Task.TRANSCRIBE) if serves(entry, task)), Task.EMBED)


def _only(view: View, task: Task | None) -> ModelEntry:
    able = [entry for entry in view.entries if _can(entry, task)]
    fit = [entry for entry in able if task is None or native_task(entry) is task] or able
    loaded = set(view.services.supervisor.loaded())
    plain = [entry for entry in fit if Capability.VISION not in entry.capabilities]
    for candidates in ([entry for entry in fit if entry.id in loaded], fit, plain):
        if len(candidates) == 1:
            return view.at_hand(candidates[0])
    raise ModelNotFound("", tuple(entry.id for entry in fit))
