"""Anthropic's shapes: errors, and the list of models.

Our own code and parameter ride along under `code` and `param`; Anthropic's clients read `type` and `message`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from llamarunner.catalog import ModelEntry
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import Dialect, sse
from llamarunner.errors import LlamaRunnerError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_object(error: LlamaRunnerError, request_id: str) -> dict[str, object]:
    """Describe an error as Anthropic does, whose types go by the status."""
    kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    inner = {**error.details, "type": kind, "message": error.message, "code": error.code, "param": error.param}
    return {"type": "error", "error": inner, "request_id": request_id}


def error_body(error: LlamaRunnerError, request_id: str) -> bytes:
    return dumps(error_object(error, request_id))


def error_event(error: LlamaRunnerError, request_id: str) -> bytes:
    return sse(error_body(error, request_id), event="error")


def model_object(entry: ModelEntry) -> dict[str, object]:
    created = datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"type": "model", "id": entry.instance_id, "display_name": entry.instance_id, "created_at": created}


def model_list(models: list[dict[str, object]]) -> dict[str, object]:
    """List all models as one page."""
    first, last = (models[0]["id"], models[-1]["id"]) if models else (None, None)
    return {"data": models, "has_more": False, "first_id": first, "last_id": last}


ANTHROPIC = Dialect("anthropic", error_body, error_event, pulse=sse(b'{"type":"ping"}', event="ping"))
