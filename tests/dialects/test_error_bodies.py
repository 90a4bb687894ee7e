"""The same error, said to OpenAI's and to Anthropic's clients; and what a model's process says, as ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamarunner import errors
from llamarunner.dialects import anthropic, llama_cpp, openai

NOT_FOUND = errors.ModelNotFound("nobody", ("a", "b"))
TOO_LONG = {
    "code": 400,
    "message": "the request exceeds the available context size",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 9000,
    "n_ctx": 4096,
}


def refusal(status: int, error: object) -> errors.LlamaRunnerError:
    return llama_cpp.refusal(status, json.dumps({"error": error}).encode())


def data(event: bytes) -> Any:
    lines = event.decode().removesuffix("\n\n").split("\n")
    return json.loads(lines[-1].removeprefix("data: "))


def test_openai_body_has_the_four_keys() -> None:
    assert json.loads(openai.error_body(NOT_FOUND, "r1")) == {
        "error": {
            "code": "model_not_found",
            "message": "The model 'nobody' was not found. Available: a, b.",
            "type": "invalid_request_error",
            "param": "model",
        }
    }


def test_openai_event_is_the_body_as_data() -> None:
    event = openai.error_event(NOT_FOUND, "r1")
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert data(event) == json.loads(openai.error_body(NOT_FOUND, "r1"))


def test_responses_event_is_flat_and_named() -> None:
    event = openai.responses_error_event(NOT_FOUND, "r1")
    assert event.startswith(b"event: error\ndata: ")
    assert data(event) == {"type": "error", "code": "model_not_found", "message": NOT_FOUND.message, "param": "model"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InvalidRequest("x"), "invalid_request_error"),
        (errors.Unauthorized("x"), "authentication_error"),
        (errors.Forbidden("x"), "permission_error"),
        (NOT_FOUND, "not_found_error"),
        (errors.PayloadTooLarge("x"), "request_too_large"),
        (errors.UnsupportedMedia("x"), "invalid_request_error"),
        (errors.QueueFull("x"), "overloaded_error"),
        (errors.BackendTimeout("x"), "timeout_error"),
        (errors.BackendFailed("x"), "api_error"),
        (errors.ServerError("x"), "api_error"),
    ],
)
def test_anthropic_types_go_by_the_status(error: errors.LlamaRunnerError, kind: str) -> None:
    body = json.loads(anthropic.error_body(error, "r1"))
    assert body["type"] == "error"
    assert body["request_id"] == "r1"
    assert (body["error"]["type"], body["error"]["message"], body["error"]["code"]) == (kind, error.message, error.code)
    event = anthropic.error_event(error, "r1")
    assert event.startswith(b"event: error\n")
    assert data(event) == body


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, llama_cpp.Refused, "invalid_request"),
        (413, llama_cpp.Refused, "invalid_request"),
        (422, llama_cpp.Refused, "invalid_request"),
        (501, llama_cpp.Refused, "invalid_request"),
        (401, errors.BackendFailed, "server_error"),
        (404, errors.RouteNotFound, "not_found"),
        (500, errors.ServerError, "server_error"),
        (503, errors.ServiceUnavailable, "service_unavailable"),
        (302, errors.BackendFailed, "server_error"),
        (204, errors.BackendFailed, "server_error"),
    ],
)
def test_a_refusal_becomes_our_error(status: int, kind: type[errors.LlamaRunnerError], code: str) -> None:
    error = refusal(status, {"code": status, "message": "because", "type": "x_error"})
    assert type(error) is kind
    assert error.code == code


def test_a_refusal_to_a_client_is_no_5xx_for_a_missing_feature() -> None:
    assert refusal(501, {"message": "This server does not support embeddings."}).status == 400


def test_a_prompt_too_long_keeps_its_numbers() -> None:
    error = refusal(400, TOO_LONG)
    body = json.loads(openai.error_body(error, "r1"))["error"]
    assert error.status == 400
    assert body["code"] == "context_length_exceeded"
    assert (body["n_prompt_tokens"], body["n_ctx"]) == (9000, 4096)
    assert json.loads(anthropic.error_body(error, "r1"))["error"]["n_ctx"] == 4096


def test_a_models_key_cannot_replace_ours() -> None:
    error = refusal(400, {"code": 400, "message": "m", "type": "t", "param": "p", "n_ctx": 1, "nested": {"a": 1}})
    body = json.loads(openai.error_body(error, "r1"))["error"]
    assert body == {
        "n_ctx": 1,
        "code": "invalid_request",
        "message": "m",
        "type": "invalid_request_error",
        "param": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        "failed to open /home/someone/models/a b/x.gguf: no",
        "'/var/lib/x.gguf' is broken",
        "C:\\Users\\me\\x.gguf is broken",
        "in /usr/src/llama.cpp/server.cpp:123",
    ],
)
def test_paths_of_this_machine_are_not_told(text: str) -> None:
    error = refusal(500, {"message": text})
    extra = refusal(400, {"message": "m", "where": text})
    assert isinstance(extra, llama_cpp.Refused)
    for said in (error.message, str(extra.details["where"])):
        assert "[path]" in said
        assert not any(word in said for word in ("home", "var", "Users", "usr", "gguf"))


@pytest.mark.parametrize(
    "text", ["use /v1/chat/completions", "and/or", "a 1/2 cup", "https://example.com/a/b", "50 tokens/s"]
)
def test_other_words_with_slashes_stay(text: str) -> None:
    assert refusal(500, {"message": text}).message == text


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":"no"}', b'{"error":{}}', b"\xff", b"[" * 100_000])
def test_a_refusal_without_a_reason_is_still_an_error(body: bytes) -> None:
    error = llama_cpp.refusal(500, body)
    assert (error.status, error.message) == (500, "The model's process gave no reason.")
