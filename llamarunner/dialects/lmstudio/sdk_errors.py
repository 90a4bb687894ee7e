"""Errors as LM Studio's SDKs read them: a title, and what they can show by a code of their own (`displayData`).

The Python client makes its own exceptions of `generic.noModelMatchingQuery` and `generic.presetNotFound`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamarunner.errors import InvalidRequest, LlamaRunnerError, ModelNotFound

SAMPLE = 10  # names that an error tells


class Displayed(InvalidRequest):
    """An error with something to show."""

    def __init__(self, message: str, display: Mapping[str, object], *, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.display = display
        self.suggestion = suggestion


def no_match(query: Mapping[str, object], loaded: Sequence[str]) -> Displayed:
    """No loaded model fits what was asked for; `loaded` are the identifiers of those that are."""
    display = {
        "code": "generic.noModelMatchingQuery",
        "query": dict(query),
        "loadedModelsSample": list(loaded[:SAMPLE]),
        "totalLoadedModels": len(loaded),
    }
    return Displayed("No model found that fits the query.", display, suggestion="Load the model first.")


def unloaded() -> Displayed:
    """The very instance that was asked for is gone."""
    return Displayed("This model has already been unloaded.", {"code": "generic.specificModelUnloaded"})


def identifier_not_found(identifier: str, loaded: Sequence[str]) -> Displayed:
    """No model is loaded under this identifier."""
    display = {
        "code": "generic.identifierNotFound",
        "identifier": identifier[:200],
        "loadedModelsSample": list(loaded[:SAMPLE]),
        "totalLoadedModels": len(loaded),
    }
    return Displayed(f"Cannot find a model with the identifier '{identifier[:200]}'.", display)


def path_not_found(path: str, known: Sequence[str]) -> Displayed:
    """There is no model of this key; `known` are the keys of all."""
    display = {
        "code": "generic.pathNotFound",
        "path": path[:200],
        "availablePathsSample": list(known[:SAMPLE]),
        "totalModels": len(known),
    }
    return Displayed(f"Cannot find a model with the key '{path[:200]}'.", display)


def domain_mismatch(path: str, actual: str, expected: str) -> Displayed:
    """The model is of the other kind; kinds are `llm` and `embedding`."""
    display = {
        "code": "generic.domainMismatch",
        "path": path,
        "actualDomain": actual,
        "expectedDomain": expected,
    }
    return Displayed(f"The model '{path}' is of the kind '{actual}', not '{expected}'.", display)


def preset_not_found(identifier: str) -> Displayed:
    """There are no presets here."""
    display = {
        "code": "generic.presetNotFound",
        "specifiedFuzzyPresetIdentifier": identifier[:200],
        "availablePresetsSample": [],
        "totalAvailablePresets": 0,
    }
    return Displayed(f"There is no preset '{identifier[:200]}'.", display)


def serialized(error: LlamaRunnerError) -> dict[str, object]:
    """Say one of our errors."""
    said: dict[str, object] = {
        "title": error.message,
        "rootTitle": error.message,
        "errorData": {"code": error.code, "type": error.type, "param": error.param, **error.details},
    }
    if error.retry_after is not None:
        said["suggestion"] = f"Try again in {error.retry_after:g} seconds."
    if isinstance(error, Displayed):
        said["displayData"] = error.display
        if error.suggestion:
            said["suggestion"] = error.suggestion
    elif isinstance(error, ModelNotFound):
        empty = {"query": {}, "loadedModelsSample": [], "totalLoadedModels": 0}
        said["displayData"] = {"code": "generic.noModelMatchingQuery", **empty}
    return said
