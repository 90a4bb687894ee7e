"""Ollama's paths as OpenAPI describes them: what they take is told by the bodies that are read, what they answer here.

The answers are made elsewhere, as objects of JSON; a test holds the recorded ones to these types.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp.typedefs import Handler
from pydantic import JsonValue

from llamarunner.dialects.ollama import requests
from llamarunner.server import library_api, ollama_api
from llamarunner.server.operation import Operation


@dataclass(frozen=True, slots=True)
class OllamaError:
    """What went wrong; inside a stream it is the last line."""

    error: str


@dataclass(frozen=True, slots=True)
class OllamaTokenLogprob:
    token: str
    logprob: float
    bytes: list[int] | None = None


@dataclass(frozen=True, slots=True)
class OllamaLogprob:
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[OllamaTokenLogprob] | None = None


@dataclass(frozen=True, slots=True)
class OllamaCalledFunction:
    index: int
    name: str
    arguments: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class OllamaToolCall:
    id: str
    function: OllamaCalledFunction


@dataclass(frozen=True, slots=True)
class OllamaMessage:
    role: str
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaToolCall] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaAnswer:
    """What chats and completions have in common; the figures are in the last object. Durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None  # stop, length, load, unload
    logprobs: list[OllamaLogprob] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaChatAnswer(OllamaAnswer):
    message: OllamaMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaGenerateAnswer(OllamaAnswer):
    response: str
    thinking: str | None = None
    context: list[int] | None = None  # tokens to go on from


@dataclass(frozen=True, slots=True)
class OllamaEmbedAnswer:
    model: str
    embeddings: list[list[float]]
    total_duration: int | None = None  # nanoseconds
    load_duration: int | None = None
    prompt_eval_count: int | None = None


@dataclass(frozen=True, slots=True)
class OllamaEmbeddingAnswer:
    embedding: list[float]


@dataclass(frozen=True, slots=True)
class OllamaDetails:
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    context_length: int | None = None
    embedding_length: int | None = None


@dataclass(frozen=True, slots=True)
class OllamaModel:
    name: str
    model: str
    modified_at: str
    size: int  # bytes
    digest: str
    details: OllamaDetails
    capabilities: list[str]


@dataclass(frozen=True, slots=True)
class OllamaModels:
    models: list[OllamaModel]


@dataclass(frozen=True, slots=True)
class OllamaRunning:
    name: str
    model: str
    size: int  # bytes
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


@dataclass(frozen=True, slots=True)
class OllamaAllRunning:
    models: list[OllamaRunning]


@dataclass(frozen=True, slots=True)
class OllamaTensor:
    name: str
    type: str
    shape: list[int]


@dataclass(frozen=True, slots=True)
class OllamaShown:
    modelfile: str
    details: OllamaDetails
    model_info: dict[str, JsonValue]
    capabilities: list[str]
    modified_at: str
    license: str | None = None
    parameters: str | None = None
    template: str | None = None
    system: str | None = None
    messages: list[dict[str, JsonValue]] | None = None
    projector_info: dict[str, JsonValue] | None = None
    tensors: list[OllamaTensor] | None = None


@dataclass(frozen=True, slots=True)
class OllamaVersion:
    version: str


@dataclass(frozen=True, slots=True)
class OllamaCloud:
    disabled: bool
    source: str


@dataclass(frozen=True, slots=True)
class OllamaStatus:
    cloud: OllamaCloud


@dataclass(frozen=True, slots=True)
class OllamaRecommendations:
    recommendations: list[dict[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class OllamaProgress:
    """One line of what is told while models are pulled or made; the last says `success`."""

    status: str
    digest: str | None = None
    total: int | None = None  # bytes
    completed: int | None = None


_BODIES: dict[str, type[requests.Body]] = {
    "/api/chat": requests.ChatRequest,
    "/api/generate": requests.GenerateRequest,
    "/api/embed": requests.EmbedRequest,
    "/api/embeddings": requests.EmbeddingRequest,
    "/api/show": requests.ShowRequest,
    "/api/push": requests.ModelRequest,
    "/api/pull": requests.PullRequest,
    "/api/create": requests.CreateRequest,
    "/api/copy": requests.CopyRequest,
    "/api/delete": requests.ModelRequest,
}
_ANSWERS: dict[str, type | None] = {  # other paths only refuse
    "/api/chat": OllamaChatAnswer,
    "/api/generate": OllamaGenerateAnswer,
    "/api/embed": OllamaEmbedAnswer,
    "/api/embeddings": OllamaEmbeddingAnswer,
    "/api/tags": OllamaModels,
    "/api/ps": OllamaAllRunning,
    "/api/show": OllamaShown,
    "/api/version": OllamaVersion,
    "/api/status": OllamaStatus,
    "/api/experimental/model-recommendations": OllamaRecommendations,
    "/api/pull": OllamaProgress,
    "/api/create": OllamaProgress,
    "/api/copy": None,
    "/api/delete": None,
    "/api/blobs/{digest}": None,
}
_STREAMED = (OllamaChatAnswer, OllamaGenerateAnswer, OllamaProgress)
_UPLOAD = ("POST", "/api/blobs/{digest}")


def _operation(method: str, path: str, handler: Handler) -> Operation:
    upload = (method, path) == _UPLOAD
    return Operation(
        *(method, path, handler, _ANSWERS.get(path)),
        status=201 if upload else 200 if path in _ANSWERS else None,
        also={200: None} if upload else {},
        body=bytes if upload else _BODIES.get(path),
        body_media="application/octet-stream" if upload else "application/json",
        body_required=path in _BODIES,
        streams=_ANSWERS.get(path) in _STREAMED,
        failure=OllamaError,
        tag="ollama",
    )


OPERATIONS: tuple[Operation, ...] = tuple(
    _operation(*route, handler) for route, handler in (ollama_api.ROUTES | library_api.ROUTES).items()
)
