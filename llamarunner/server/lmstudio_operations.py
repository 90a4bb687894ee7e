"""LM Studio's own paths, for the description of the API."""

from __future__ import annotations

from pydantic import JsonValue

from llamarunner.dialects.lmstudio import v0
from llamarunner.server import lmstudio_v0
from llamarunner.server.operation import FROM_MODEL, Asked, Operation

OPERATIONS: tuple[Operation, ...] = tuple(
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
