"""OpenAI's shapes: errors, and the list of models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from llamarunner.catalog import ModelEntry
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import Dialect, sse
from llamarunner.errors import LlamaRunnerError


@dataclass(frozen=True, slots=True)
class Model:
    """One model: OpenAI's four keys, then what helps a client to choose."""

    id: str
    object: Literal["model"]
    created: int  # Unix time at which the file changed last
    owned_by: str
    status: str  # loaded, loading, unloaded, error
    capabilities: list[str]
    context_length: int | None  # tokens that it was trained for
    architecture: str | None
    quantization: str | None
    parameters: int | None  # a count
    size: int  # bytes
    error: str | None = None  # why it cannot be used; left out if it can


@dataclass(frozen=True, slots=True)
class ModelList:
    object: Literal["list"]
    data: list[Model]


def error_object(error: LlamaRunnerError) -> dict[str, object]:
    """Describe an error: the spec's `code`, `message` and `type`, OpenAI's `param`, and its details."""
    return {**error.details, "code": error.code, "message": error.message, "type": error.type, "param": error.param}


def error_body(error: LlamaRunnerError, request_id: str) -> bytes:
    return dumps({"error": error_object(error)})


def error_event(error: LlamaRunnerError, request_id: str) -> bytes:
    return sse(dumps({"error": error_object(error)}))


def responses_error_event(error: LlamaRunnerError, request_id: str) -> bytes:
    """Describe an error as the Responses API does, whose events are flat and named."""
    fields = {"code": error.code, "message": error.message, "param": error.param}
    return sse(dumps({"type": "error", **fields}), event="error")


def model_object(entry: ModelEntry, status: str) -> dict[str, object]:
    """Describe one model, or an instance beside its first, as a `Model`."""
    model = Model(
        id=entry.instance_id,
        object="model",
        created=entry.created,
        owned_by="llama-runner",
        status=status,
        capabilities=sorted(entry.capabilities),
        context_length=entry.context_length,
        architecture=entry.architecture,
        quantization=entry.quantization,
        parameters=entry.parameters,
        size=entry.size,
        error=entry.error,
    )
    return {name: value for name, value in asdict(model).items() if name != "error" or value is not None}


def model_list(models: list[dict[str, object]]) -> dict[str, object]:
    return {"object": "list", "data": models}


OPENAI = Dialect("openai", error_body, error_event)
RESPONSES = Dialect("responses", error_body, responses_error_event)
