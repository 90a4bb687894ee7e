"""The fields of OpenAI's Audio API, and ours, as a form has them: texts, lists as `name[]`, objects as `name[key]`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llamarunner.dialects.languages import code_of
from llamarunner.errors import InvalidRequest

LISTS = frozenset({"timestamp_granularities", "include"})
MOST_ITEMS = 16  # of a list
_PART = re.compile(r"(?P<name>\w+)\[(?P<key>\w*)\]")
_MUST_BE = {
    "response_format": "it must be json, text, srt, verbose_json or vtt",
    "chunking_strategy": "it must be auto, or an object of the type server_vad, with a threshold from 0 to 1, "
    "prefix_padding_ms up to 10000 and silence_duration_ms up to 60000",
}


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ServerVad(_Fields):
    """How silence is told from speech, as OpenAI's `chunking_strategy`."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(0.5, ge=0, le=1, description="Probability above which a sound is speech.")
    prefix_padding_ms: int = Field(300, ge=0, le=10_000, description="Sound kept before and after speech.")
    silence_duration_ms: int = Field(200, ge=0, le=60_000, description="Silence that ends speech.")


class AudioRequest(_Fields):
    """What a translation may ask; unknown fields are ignored, as clients of newer models send them."""

    model: str = Field("whisper-1", min_length=1, max_length=512, description="A speech model, by any of its names.")
    prompt: str = Field("", description="Text that shows the style and the spelling to expect; the end of it counts.")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(
        0, ge=0, le=1, description="Sampling temperature; 0 takes the likeliest, and raises it by itself where needed."
    )
    stream: bool = Field(False, description="Send events as phrases are heard; response_format plays no part then.")
    chunking_strategy: Literal["auto"] | ServerVad | None = Field(
        None, description="Skip silence, in this way; without it the server's setting holds."
    )
    hotwords: str = Field("", description="Words to expect; some hundred tokens of them count.")

    @field_validator("stream", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if value in ("", "null") else value

    def vad(self, by_default: bool) -> dict[str, object] | None:
        """The options of faster-whisper's voice activity detection; None hears everything."""
        match self.chunking_strategy:
            case ServerVad() as chosen:
                return {
                    "threshold": chosen.threshold,
                    "speech_pad_ms": chosen.prefix_padding_ms,
                    "min_silence_duration_ms": chosen.silence_duration_ms,
                }
            case None if not by_default:
                return None
            case _:
                return {}


class TranscriptionRequest(AudioRequest):
    """What a transcription may ask."""

    language: str | None = Field(None, description="Language of the speech: ISO 639-1, or its English name.")
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = Field(
        ("segment",), description="Which times verbose_json and json tell."
    )
    include: tuple[Literal["logprobs"], ...] = Field((), description="More to tell: logprobs, of each word.")

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        if not value:
            return None
        code = code_of(value)
        if code is None:
            raise ValueError("it is no language that Whisper knows; give its ISO 639-1 code, such as en")
        return code


def parse(kind: type[AudioRequest], fields: Iterable[tuple[str, str]]) -> AudioRequest:
    """Make a request of a form's fields. Raises InvalidRequest that names the field."""
    try:
        return kind.model_validate(_document(kind, fields))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(str(fault["loc"][0]), fault["msg"]) from None


def _document(kind: type[AudioRequest], fields: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
    """Put lists and objects together, in each of the ways in which clients spell them; leave out what is not read."""
    document: dict[str, Any] = {}
    for spelled, value in fields:
        match = _PART.fullmatch(spelled)
        name, key = (match["name"], match["key"]) if match else (spelled, "")
        if name not in kind.model_fields:
            continue
        if name in LISTS:
            items, more = document.setdefault(name, []), _items(value)
            if len(items) + len(more) > MOST_ITEMS:
                raise InvalidRequest(f"'{name}' has more than {MOST_ITEMS} items.", param=name)
            items.extend(more)
        elif key:
            inner = document.setdefault(name, {})
            if not isinstance(inner, dict) or key in inner:
                raise _twice(name)
            inner[key] = value
        elif name in document:
            raise _twice(name)
        else:
            document[name] = _object(value) if name == "chunking_strategy" else value
    return {name: value for name, value in document.items() if value != "" or name == "model"}


def _items(value: str) -> list[Any]:
    """One item, or several as JSON, which some clients send."""
    listed = _json(value) if value.startswith("[") else None
    return listed if isinstance(listed, list) else [value]


def _object(value: str) -> Any:
    return (_json(value) if value.startswith("{") else None) or value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _twice(name: str) -> InvalidRequest:
    return InvalidRequest(f"'{name[:100]}' appears twice in the form.", param=name[:100])


def _refusal(name: str, message: str) -> InvalidRequest:
    said = message.removeprefix("Value error, ")
    said = _MUST_BE.get(name, said)
    return InvalidRequest(f"'{name}' is wrong: {said[:1].lower()}{said[1:]}.", param=name)
