"""What a llama.cpp server says when it refuses, and what we make of it.

    {"error": {"code": 400, "message": "…", "type": "exceed_context_size_error", "n_prompt_tokens": 900, "n_ctx": 4096}}

Its keys beyond those three pass on to the client. Paths of this machine do not, wherever they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from llamarunner.errors import (
    BackendFailed,
    InvalidRequest,
    LlamaRunnerError,
    RouteNotFound,
    ServerError,
    ServiceUnavailable,
)

MAX_MESSAGE = 2000
# What llama.cpp answers with status 500 although the request is at fault.
_CLIENT_MISTAKE = re.compile(
    r"is required|missing|unknown|failed to parse|invalid|unsupported|not supported|must be|expected|unable to", re.I
)
# An encoder whose batch is its context; also with status 500.
_TOO_LONG = re.compile(r"input \((\d+) tokens\) is too large to process.*current batch size: (\d+)", re.DOTALL)
_POOL_FULL = re.compile(r"context size has been exceeded", re.I)  # by all slots together; no fault of this request
_INNARDS = re.compile(r"_M_range_check|std::|basic_string")  # words of the C++ library
_PATH = re.compile(r"(?<![\w/:.])(?:/(?!v1/)[\w.@+ -]*[\w.@+-](?=/)){1,}/[\w.@+-]+|\b[A-Za-z]:\\[^\s'\"]+")


class Refused(InvalidRequest):
    """The model's process refused the request; `details` are the facts that it gave."""

    def __init__(self, message: str, details: Mapping[str, object]) -> None:
        super().__init__(message)
        self.details = details


class ContextLengthExceeded(Refused):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


def refusal(status: int, body: bytes) -> LlamaRunnerError:
    """Turn an error answer of the model's process into our error."""
    error = _error_of(body)
    message = _scrubbed(str(error.get("message") or "The model's process gave no reason."))
    if about_context := _about_context(error, message):
        return about_context
    match status:
        case 401 | 403:
            return BackendFailed("The model's process did not accept the server's credentials.")
        case 404:
            return RouteNotFound(message)
        case 503:
            return ServiceUnavailable(message)
        case 501:  # a feature that this model lacks; clients would repeat a 5xx
            return Refused(message, _extra(error))
        case _ if 400 <= status < 500:
            return Refused(message, _extra(error))
        case _ if status >= 500 and _CLIENT_MISTAKE.search(message):
            return Refused(message, _extra(error))
        case _ if status >= 500:
            return ServerError(message)
        case _:
            return BackendFailed(f"The model's process gave an unexpected answer (status {status}).")


def _about_context(error: Mapping[str, object], message: str) -> LlamaRunnerError | None:
    """What it says of a context that is full, if that is what it says."""
    if found := _TOO_LONG.search(message):
        said = f"The input has {found[1]} tokens; the model takes at most {found[2]} at once."
        facts = {"n_prompt_tokens": int(found[1]), "n_ctx": int(found[2])}  # as llama.cpp says it elsewhere
        return ContextLengthExceeded(said, _extra(error) | facts)
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(message, _extra(error))
    if _POOL_FULL.search(message):
        return ServiceUnavailable(
            "The requests that the model answers at the same time have filled the context that they share. Try again; "
            "the owner can give it more with ctx_size, or fewer slots with parallel."
        )
    return None


def _error_of(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _extra(error: Mapping[str, object]) -> dict[str, object]:
    known = {"code", "message", "type", "param"}
    return {
        key: _scrubbed(value) if isinstance(value, str) else value
        for key, value in error.items()
        if _passes(key, value, known)
    }


def _passes(key: str, value: object, known: set[str]) -> bool:
    return key not in known and isinstance(value, str | int | float | bool)


def _scrubbed(text: str) -> str:
    if _INNARDS.search(text):
        return "Invalid request: a value is out of range."
    return _PATH.sub("[path]", text)[:MAX_MESSAGE]
