"""Which model a request means on LM Studio's door.

A name is that of an instance, or of a model in any letter case. One that nobody has is answered by the chat model that
is loaded, if it is the only one: many clients send a name of their own making. The answer's `model` tells whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.catalog import ModelEntry
from llamarunner.dialects.lmstudio.errors import NoModelNamed, UnknownModel
from llamarunner.errors import InvalidRequest, ModelNotFound
from llamarunner.fleet.launch import Task
from llamarunner.server.resolve import able, resolve
from llamarunner.server.services import View


def resolve_for_lmstudio(view: View, document: Mapping[str, object], task: Task | None) -> tuple[ModelEntry, Task]:
    """Find the model of a request and what to start it for; no `task` means what it is made for.

    Raises UnknownModel, NoModelNamed, InvalidRequest for a model that cannot do this, or ModelNotLoaded for a broken
    file.
    """
    name = document.get("model")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest("'model' must be a string.", param="model")
    if not name:
        return _unnamed(view, task)
    try:
        return able(find(view, name), task)
    except UnknownModel:
        chats = _loaded_chats(view) if task is Task.GENERATE else []
        if len(chats) != 1:
            raise
        return able(chats[0], task)


def find(view: View, name: str) -> ModelEntry:
    """Find an instance or a model by its name, and never another. Raises UnknownModel."""
    try:
        return view.find(name)
    except ModelNotFound as missing:
        raise UnknownModel(name, missing.known) from None


def _unnamed(view: View, task: Task | None) -> tuple[ModelEntry, Task]:
    try:
        return resolve(view, {}, task)
    except ModelNotFound as missing:
        raise NoModelNamed(len(_loaded_chats(view)), missing.known) from None


def _loaded_chats(view: View) -> list[ModelEntry]:
    """The chat models that are loaded, each as the instance that serves those who name only the model."""
    ready = view.services.supervisor.ready()
    loaded = {instance.entry.id for instance in ready if instance.task is Task.GENERATE}
    return [view.at_hand(entry) for entry in view.entries if entry.id in loaded]
