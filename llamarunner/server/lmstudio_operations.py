"""LM Studio's own paths, for the description of the API."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from llamarunner.dialects.lmstudio import described, managing, v0
from llamarunner.dialects.lmstudio.chat_events import ChatAnswer
from llamarunner.dialects.lmstudio.chat_request import ChatRequest
from llamarunner.server import lmstudio_chat, lmstudio_downloads, lmstudio_models, lmstudio_v0
from llamarunner.server.operation import FROM_MODEL, NOT_FOUND, Asked, Operation, plain

TAG = "lmstudio"


@dataclass(frozen=True, slots=True)
class NativeError:
    """What went wrong, as REST v1 says it."""

    message: str
    type: str
    param: str | None = None  # the field at fault
    code: str | None = None


@dataclass(frozen=True, slots=True)
class NativeErrorAnswer:
    error: NativeError


_NATIVE_ERRORS = dict.fromkeys((400, 401, 403, 404, 408, 413, 415, 429, 500, 503), NativeErrorAnswer)
_MODELS = tuple(
    Operation(
        *(method, path, (lmstudio_models.ROUTES | lmstudio_downloads.ROUTES)[method, path], answer),
        body=body,
        body_required=body is not None,
        also=_NATIVE_ERRORS,
        tag=TAG,
    )
    for method, path, answer, body in (
        ("GET", "/api/v1/models", described.V1Models, None),
        ("POST", "/api/v1/models/load", managing.ModelLoaded, managing.LoadRequest),
        ("POST", "/api/v1/models/unload", managing.ModelUnloaded, managing.UnloadRequest),
        ("POST", "/api/v1/models/download", managing.DownloadStarted, managing.DownloadRequest),
        ("GET", "/api/v1/models/download/status/{job_id}", managing.DownloadStatus, None),
    )
)
_MODELS_V0 = tuple(
    Operation(*("GET", plain(path), lmstudio_models.ROUTES["GET", path], answer), errors=NOT_FOUND, tag=TAG)
    for path, answer in (
        ("/api/v0/models", described.V0Models),
        ("/api/v0/models/{id:.+}", described.V0Model),
    )
)
_INFERENCE = tuple(
    Operation(
        *("POST", path, lmstudio_v0.ROUTES["POST", path], answer),
        body=Asked,
        body_required=True,
        errors=FROM_MODEL,
        tag="inference",
    )
    for path, answer in (
        ("/api/v0/chat/completions", v0.Completion),
        ("/api/v0/completions", v0.Completion),
        ("/api/v0/embeddings", dict[str, JsonValue]),
    )
)

_CHAT = Operation(
    *("POST", "/api/v1/chat", lmstudio_chat.chat, ChatAnswer),
    body=ChatRequest,
    body_required=True,
    also=dict.fromkeys((*_NATIVE_ERRORS, 502, 504), NativeErrorAnswer),
    tag=TAG,
)

OPERATIONS: tuple[Operation, ...] = (_CHAT, *_MODELS, *_MODELS_V0, *_INFERENCE)
