"""Errors as LM Studio's SDKs read them."""

from __future__ import annotations

import pytest

from llamarunner.dialects.lmstudio import sdk_errors
from llamarunner.errors import LlamaRunnerError, ModelNotFound, RateLimited, ServerError

MANY = [f"m{n}" for n in range(20)]


def test_an_error_of_ours() -> None:
    error = ServerError("It broke.", param="p")
    error.details = {"n_ctx": 5}
    assert sdk_errors.serialized(error) == {
        "title": "It broke.",
        "rootTitle": "It broke.",
        "errorData": {"code": "server_error", "type": "server_error", "param": "p", "n_ctx": 5},
    }


def test_when_to_try_again() -> None:
    assert sdk_errors.serialized(RateLimited("Slow.", retry_after=1.5))["suggestion"] == "Try again in 1.5 seconds."


@pytest.mark.parametrize(
    ("error", "display"),
    [
        (
            sdk_errors.no_match({"vision": True}, MANY),
            {
                "code": "generic.noModelMatchingQuery",
                "query": {"vision": True},
                "loadedModelsSample": MANY[:10],
                "totalLoadedModels": 20,
            },
        ),
        (sdk_errors.unloaded(), {"code": "generic.specificModelUnloaded"}),
        (
            sdk_errors.identifier_not_found("x" * 300, MANY),
            {
                "code": "generic.identifierNotFound",
                "identifier": "x" * 200,
                "loadedModelsSample": MANY[:10],
                "totalLoadedModels": 20,
            },
        ),
        (
            sdk_errors.path_not_found("k", MANY),
            {"code": "generic.pathNotFound", "path": "k", "availablePathsSample": MANY[:10], "totalModels": 20},
        ),
        (
            sdk_errors.domain_mismatch("k", "embedding", "llm"),
            {
                "code": "generic.domainMismatch",
                "path": "k",
                "actualDomain": "embedding",
                "expectedDomain": "llm",
            },
        ),
        (
            sdk_errors.preset_not_found("mine"),
            {
                "code": "generic.presetNotFound",
                "specifiedFuzzyPresetIdentifier": "mine",
                "availablePresetsSample": [],
                "totalAvailablePresets": 0,
            },
        ),
        (
            ModelNotFound("x"),
            {
                "code": "generic.noModelMatchingQuery",
                "query": {},
                "loadedModelsSample": [],
                "totalLoadedModels": 0,
            },
        ),
    ],
    ids=lambda value: value["code"] if isinstance(value, dict) else "",
)
def test_what_clients_can_show(error: LlamaRunnerError, display: dict[str, object]) -> None:
    told = sdk_errors.serialized(error)
    assert told["displayData"] == display
    assert told["title"] == error.message
