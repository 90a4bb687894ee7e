"""Models as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from llamarunner.verbs.client import Json

_BYTES = ((1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB"))
_SPANS = ((365 * 86_400, "year"), (30 * 86_400, "month"), (7 * 86_400, "week"), (86_400, "day"), (3_600, "hour"))
_FOR_EVER = 100 * 365 * 86_400  # seconds; Ollama's door says centuries for models that stay
GAP = "    "  # between columns
NEXT = "\n"  # section
_DIGITS = 12  # of a digest
_SHORT_LICENSE = 2  # lines


def speech_of(every: Json) -> list[Json]:
    """Those of /v1/models that write down what is said."""
    return [one for one in every.get("data", ()) if "transcription" in one.get("capabilities", ())]


def with_speech(answer: Json, every: Json) -> Json:
    """Add to a list of Ollama's, whose clients only chat, the speech models of /v1/models."""
    return answer | {"models": [*answer.get("models", ()), *map(_tag, speech_of(every))]}


def with_running(answer: Json, speech: Json, status: Json) -> Json:
    """Add to /api/ps a speech model that is loaded, by what its status says."""
    until = status.get("expires_at") or datetime.max.replace(tzinfo=UTC).isoformat()
    running = _tag(speech) | {"size": status.get("memory_usage", 0), "expires_at": until}
    return answer | {"models": [*answer.get("models", ()), running]}


def beginning(answer: Json, text: str) -> Json:
    """Leave of /api/tags the models whose names begin so."""
    found = [one for one in answer.get("models", ()) if str(one.get("name", "")).lower().startswith(text.lower())]
    return answer | {"models": found}


def models(answer: Json) -> Iterator[str]:
    """Say /api/tags in lines."""
    return _lined_up(("NAME", "ID", "SIZE", "MODIFIED"), *map(_model, answer.get("models", ())))


def running(answer: Json) -> Iterator[str]:
    """Say /api/ps in lines."""
    return _lined_up(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), *map(_running, answer.get("models", ())))


def shown(answer: Json) -> Iterator[str]:
    """Say /api/show in lines."""
    return _titled(_sections(answer))


def described(info: Json) -> Iterator[str]:
    """Say what /v1/models/{id}/info knows of a speech model in lines."""
    facts = {name: info.get(name) for name in ("id", "format", "publisher", "path", "license", "error")}
    facts["size"] = size(info.get("size", 0))
    model = [(name, str(value)) for name, value in facts.items() if value]
    return _titled([("Model", model), ("Capabilities", [(str(one),) for one in info.get("capabilities", ())])])


def _titled(sections: Iterable[tuple[str, Sequence[Sequence[str]]]]) -> Iterator[str]:
    told = [(title, rows) for title, rows in sections if rows]
    for number, (title, rows) in enumerate(told):
        if number:
            yield ""
        yield f"  {title}"
        width = max(len(row[0]) for row in rows)
        yield from (f"    {row[0]:<{width}}    {''.join(row[1:])}".rstrip() for row in rows)


def _tag(one: Json) -> Json:
    changed = datetime.fromtimestamp(one.get("created", 0), UTC).isoformat()
    shared = {key: one.get(key) for key in ("size", "capabilities")}
    return {"name": one.get("id"), "model": one.get("id"), "modified_at": changed, **shared}


def _model(one: Json) -> Sequence[str]:
    changed = _moment(one.get("modified_at"))
    when = f"{_span(datetime.now(UTC) - changed)} ago" if changed else ""
    return str(one.get("name")), str(one.get("digest") or "-")[:_DIGITS], size(one.get("size", 0)), when


def _running(one: Json) -> Sequence[str]:
    return (
        str(one.get("name")),
        str(one.get("digest") or "-")[:_DIGITS],
        size(one.get("size", 0)),
        _processor(one.get("size", 0), one.get("size_vram", 0)) if "context_length" in one else "-",
        str(one.get("context_length", "-")),
        _until(_moment(one.get("expires_at"))),
    )


def _processor(whole: int, vram: int) -> str:
    """Where a model is, as Ollama's ps says it."""
    if not vram or not whole:
        return "100% CPU"
    if vram >= whole:
        return "100% GPU"
    share = round(100 * (whole - vram) / whole)
    return f"{share}%/{100 - share}% CPU/GPU"


def _until(moment: datetime | None) -> str:
    if moment is None:
        return ""
    left = moment - datetime.now(UTC)
    if left.total_seconds() > _FOR_EVER:
        return "Forever"
    return "Stopping..." if left.total_seconds() <= 0 else f"{_span(left)} from now"


def _sections(answer: Json) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    details, info = answer.get("details") or {}, answer.get("model_info") or {}
    facts = {
        "architecture": info.get("general.architecture") or details.get("family"),
        "parameters": details.get("parameter_size"),
        "context length": details.get("context_length"),
        "embedding length": details.get("embedding_length"),
        "quantization": details.get("quantization_level"),
    }
    yield "Model", [(name, str(value)) for name, value in facts.items() if value]
    yield "Capabilities", [(str(one),) for one in answer.get("capabilities", ())]
    yield "Parameters", [_parameter(line) for line in _lines(answer, "parameters")]
    yield "System", [(line,) for line in _lines(answer, "system")]
    yield "License", [(line,) for line in _lines(answer, "license") if line.strip()][:_SHORT_LICENSE]


def _parameter(line: str) -> tuple[str, ...]:
    name, _, value = line.partition(" ")
    return name, value.strip()


def _lines(answer: Json, key: str) -> list[str]:
    return str(answer.get(key) or "").splitlines()


def size(count: int) -> str:
    """Bytes for people: three digits, or two of small numbers."""
    for unit, name in _BYTES:
        if count >= unit:
            amount = count / unit
            return f"{amount:.0f} {name}" if amount >= 10 else f"{amount:.1f} {name}"
    return f"{count} B"


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _span(span: Any) -> str:
    seconds = int(span.total_seconds())
    for unit, name in (*_SPANS, (60, "minute"), (1, "second")):
        if seconds >= unit:
            count = seconds // unit
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "less than a second"


def _lined_up(*rows: Sequence[str]) -> Iterator[str]:
    """Lines with their columns one below the other. rich would take longer to import than the whole verb may."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
