"""The same error in LM Studio's three ways; bodies and texts are those of the real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner import errors
from llamarunner.dialects import llama_cpp
from llamarunner.dialects.lmstudio.errors import (
    NATIVE,
    NO_TOKEN,
    ON_V1,
    SEVERAL_MODELS,
    V0,
    FieldRequired,
    InvalidValue,
    JobNotFound,
    MissingParameter,
    NoModelNamed,
    PreviousResponseNotFound,
    UnknownModel,
    UnrecognizedKeys,
    unexpected,
)
from llamarunner.dialects.wire import Dialect

TOO_LONG = llama_cpp.ContextLengthExceeded("too long", {"n_prompt_tokens": 13055, "n_ctx": 4096})
OVERFLOW = (
    "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: "
    "4096). Try to load the model with a larger context length, or provide a shorter input."
)
INVALID = (
    'Invalid model identifier "not-a-model". Please specify a valid downloaded model '
    "(e.g., google/gemma-4-e4b@4bit, google/gemma-4-e4b, gemma-4-e4b-it-mlx)."
)
UNKNOWN = UnknownModel(
    "not-a-model", ("google/gemma-4-e4b@4bit", "google/gemma-4-e4b", "gemma-4-e4b-it-mlx", "a-fourth")
)


class ToolFailed(errors.LlamaRunnerError):
    """An error of another room, which has LM Studio's type."""

    status, code, type = 424, "mcp_connection_error", "mcp_connection_error"


def body(dialect: Dialect, error: errors.LlamaRunnerError) -> Any:
    return json.loads(dialect.error_body(error, "r1"))["error"]


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        pytest.param(
            UnrecognizedKeys(["ttl"]),
            400,
            {
                "message": "Unrecognized key(s) in object: 'ttl'",
                "type": "invalid_request",
                "code": "unrecognized_keys",
            },
            id="key",
        ),
        pytest.param(
            MissingParameter("model"),
            400,
            {
                "message": '"model" is required',
                "type": "invalid_request",
                "param": "model",
                "code": "missing_required_parameter",
            },
            id="missing",
        ),
        pytest.param(
            InvalidValue("Reasoning setting 'off' is not supported.", param="reasoning"),
            400,
            {
                "message": "Reasoning setting 'off' is not supported.",
                "type": "invalid_request",
                "param": "reasoning",
                "code": "invalid_value",
            },
            id="value",
        ),
        pytest.param(
            UNKNOWN,
            404,
            {"message": INVALID, "type": "model_not_found", "param": "model", "code": "model_not_found"},
            id="model",
        ),
        pytest.param(
            JobNotFound("job_0"),
            404,
            {"message": 'Download job "job_0" not found.', "type": "job_not_found", "code": "job_not_found"},
            id="job",
        ),
        pytest.param(
            PreviousResponseNotFound("resp_0"),
            400,
            {
                "message": "Previous response with id 'resp_0' not found.",
                "type": "invalid_request",
                "param": "previous_response_id",
                "code": "previous_response_not_found",
            },
            id="response",
        ),
        pytest.param(
            errors.Unauthorized("ours"),
            401,
            {"type": "invalid_request", "code": "invalid_api_key", "message": NO_TOKEN},
            id="no token",
        ),
        pytest.param(
            errors.RateLimited("later"),
            429,
            {"message": "later", "type": "invalid_request", "code": "rate_limit_exceeded"},
            id="limits",
        ),
        pytest.param(errors.BackendFailed("gone"), 502, {"message": "gone", "type": "internal_error"}, id="model"),
        pytest.param(errors.InvalidRequest("odd"), 400, {"message": "odd", "type": "invalid_request"}, id="request"),
        pytest.param(errors.ServerError("oh"), 500, {"message": "oh", "type": "internal_error"}, id="ours"),
        pytest.param(
            ToolFailed("gone"),
            424,
            {"message": "gone", "type": "mcp_connection_error", "code": "mcp_connection_error"},
            id="mcp",
        ),
        pytest.param(
            TOO_LONG,
            400,
            {
                "message": OVERFLOW,
                "type": "invalid_request",
                "code": "context_length_exceeded",
                "n_prompt_tokens": 13055,
                "n_ctx": 4096,
            },
            id="context",
        ),
    ],
)
def test_its_own_api_has_its_own_types(
    error: errors.LlamaRunnerError, status: int, expected: dict[str, object]
) -> None:
    assert (NATIVE.status_of(error), body(NATIVE, error)) == (status, expected)


def test_an_event_of_its_own_api_is_named_and_repeats_its_type() -> None:
    event = NATIVE.error_event(errors.ServerError("oh"), "r1").decode()
    assert event == ('event: error\ndata: {"type":"error","error":{"message":"oh","type":"internal_error"}}\n\n')


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        pytest.param(
            unexpected("POST", "/chat/completions"),
            404,
            "Unexpected endpoint or method. (POST /chat/completions)",
            id="path",
        ),
        pytest.param(
            unexpected("GET", "/api/v0/embeddings", known=True),
            405,
            "Unexpected endpoint or method. (GET /api/v0/embeddings)",
            id="method",
        ),
        pytest.param(FieldRequired("messages"), 400, "'messages' field is required", id="field"),
        pytest.param(TOO_LONG, 400, OVERFLOW, id="context"),
        pytest.param(errors.BackendFailed("it died"), 502, "it died", id="crash"),
    ],
)
def test_some_of_v0_are_a_text_alone(error: errors.LlamaRunnerError, status: int, text: str) -> None:
    assert (V0.status_of(error), body(V0, error)) == (status, text)
    assert body(ON_V1, error)["message"] == text


class PluginForbidden(errors.Forbidden):
    """An error of another room, known to LM Studio's own API."""

    type = "invalid_request"


def test_a_plugin_that_is_not_allowed_is_403_without_a_code() -> None:
    error = PluginForbidden("Permission denied to use plugin 'mcp/x'.", param="tools")
    told = {"message": "Permission denied to use plugin 'mcp/x'.", "param": "tools"}
    assert (NATIVE.status_of(error), body(NATIVE, error)) == (403, {**told, "type": "invalid_request"})
    assert body(ON_V1, error) == {**told, "type": "invalid_request_error", "code": None}


def test_an_unknown_model_is_400_in_v0_and_in_v1_what_our_own_api_documents() -> None:
    expected = {"message": INVALID, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert (V0.status_of(UNKNOWN), body(V0, UNKNOWN)) == (400, expected)
    told = body(ON_V1, UNKNOWN)
    assert told.pop("message") == INVALID.replace(
        'Invalid model identifier "not-a-model".', "The model 'not-a-model' was not found."
    )
    assert told.items() < expected.items()
    assert ON_V1.status_of(UNKNOWN) == 404


def test_who_names_no_model_is_told_why_that_is_unclear() -> None:
    assert body(V0, NoModelNamed(2))["message"] == SEVERAL_MODELS
    assert body(V0, NoModelNamed(0))["message"].startswith("No models loaded. ")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            "not-a-token-at-all",
            "Invalid LM Studio API token provided. Ensure you are using a valid token.",
        ),
        (
            "sk-lm-abcdefgh:0123456789abcdefghijk",
            "Malformed LM Studio API token provided: sk-lm-abcd**************. Ensure you are using a valid token.",
        ),
        (
            "sk-lm-abcdefgh:0123456789abcdefghij",
            "Invalid LM Studio API token provided. Ensure you are using a valid token.",
        ),
    ],
)
@pytest.mark.parametrize("dialect", [NATIVE, V0, ON_V1], ids=lambda dialect: dialect.name)
def test_a_wrong_token_is_told_apart_from_what_is_none(dialect: Dialect, given: str, text: str) -> None:
    told = body(dialect, errors.WrongKey("ours", given=given))
    assert (told["message"], told["type"], told["code"]) == (text, "invalid_request", "invalid_api_key")


def test_an_event_of_a_stream_has_its_text_twice() -> None:
    data = json.loads(ON_V1.error_event(errors.ServerError("oh"), "r1").removeprefix(b"data: "))
    assert data["message"] == data["error"]["message"] == "oh"
