"""Models and their instances as LM Studio's SDKs expect them, and how a client says which one it means.

What is not known is left out: null is only for the keys that the JavaScript client wants in any case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from llamarunner.dialects.lmstudio.described import Model
from llamarunner.dialects.lmstudio.sdk_frames import Sent
from llamarunner.errors import InvalidRequest

Info = dict[str, Any]
Domain = Literal["llm", "embedding"]


@dataclass(frozen=True, slots=True)
class Running:
    """A loaded instance."""

    identifier: str
    reference: str  # another one for each load
    context_length: int  # tokens
    ttl: float | None  # seconds of idleness before it is unloaded; None for ever
    used_at: float | None  # Unix time


class Query(Sent):
    domain: str | None = None
    identifier: str | None = None
    path: str | None = None
    vision: bool | None = None


class Specifier(Sent):
    """Which loaded instance a client means: by its reference, or any that fits the query."""

    type: Literal["query", "instanceReference"]
    query: Query = Query()
    instance_reference: str | None = None

    @property
    def told(self) -> dict[str, object]:
        """The query, as an error repeats it."""
        return self.query.model_dump(exclude_none=True)


def model_info(told: Model, path: str) -> Info:
    """One model; `path` is its file as clients may know it."""
    info: Info = {
        "type": told.type,
        "modelKey": told.key,
        "format": told.format,
        "displayName": told.display_name,
        "publisher": told.publisher,
        "path": path,
        "sizeBytes": told.size_bytes,
        "indexedModelIdentifier": told.key,
        "deviceIdentifier": None,
        "paramsString": told.params,
        "architecture": told.architecture,
        "quantization": _quantization(told),
        "maxContextLength": told.max_context_length,
    }
    if told.type == "llm":
        info |= {"vision": told.vision, "trainedForToolUse": told.tool_use}
    return {key: value for key, value in info.items() if value is not None or key == "deviceIdentifier"}


def instance_info(told: Model, path: str, running: Running) -> Info:
    """One loaded instance."""
    return model_info(told, path) | {
        "identifier": running.identifier,
        "instanceReference": running.reference,
        "ttlMs": None if running.ttl is None else round(running.ttl * 1000),
        "lastUsedTime": None if running.used_at is None else round(running.used_at * 1000),
        "contextLength": running.context_length,
    }


def fits(query: Query, told: Model, running: Running) -> bool:
    """Tell whether an instance is one that a query asks for."""
    return (
        query.domain in (None, told.type)
        and query.identifier in (None, running.identifier)
        and (query.path is None or query.path.casefold() == told.key.casefold())
        and query.vision in (None, told.vision)
    )


def seconds(milliseconds: float | None, param: str) -> float | None:
    """Read a time to live, in milliseconds; None if there is none. Raises InvalidRequest."""
    if milliseconds is None:
        return None
    if milliseconds < 1:
        raise InvalidRequest(f"'{param}' must be at least 1.", param=param)
    return milliseconds / 1000


def _quantization(told: Model) -> Info | None:
    quantization = told.quantization
    if quantization is None or quantization.bits is None:
        return None
    return {"name": quantization.name, "bits": quantization.bits}
