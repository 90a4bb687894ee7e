"""What the settings say that the models do not bear out: no mistake, for models come and go, but worth telling."""

from __future__ import annotations

from collections.abc import Iterator

from llamarunner.catalog.catalog import Catalog
from llamarunner.catalog.entry import Capability
from llamarunner.config import LIFE, Settings
from llamarunner.config.mistakes import NodePath, json_path
from llamarunner.errors import ModelNotFound


def remarks(settings: Settings, catalog: Catalog) -> Iterator[str]:
    """Yield names that no model has, and settings of llama.cpp for models that it does not run; after a scan."""
    for path, name in _names(settings):
        if not _is_known(catalog, name):
            yield f"{json_path(path)} names {name}, and there is no such model"
    for key, model in settings.models.items():
        entry = catalog.known(key)
        if entry and Capability.TRANSCRIPTION in entry.capabilities:
            for setting in sorted(model.model_fields_set - LIFE):
                place = json_path(("models", key, setting))
                yield f"{place} plays no part: speech models are run as audio and audio.models say"


def _names(settings: Settings) -> Iterator[tuple[NodePath, str]]:
    """Yield the names of models, each with its place."""
    for alias, target in settings.catalog.aliases.items():
        yield ("catalog", "aliases", alias), target
    for index, name in enumerate(settings.supervisor.preload):
        yield ("supervisor", "preload", index), name
    if settings.audio.default_model:
        yield ("audio", "default_model"), settings.audio.default_model


def _is_known(catalog: Catalog, name: str) -> bool:
    try:
        catalog.find(name)
    except ModelNotFound:
        return False
    return True
