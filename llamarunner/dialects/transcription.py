"""What a speech model heard, and how OpenAI's Audio API says it: JSON, text, subtitles, events.

The worker tells it line by line (`Transcript.take`); the answer is made of what was taken. `json` is the shape of the
LlamaRunner Pro API, which is more than OpenAI's; `verbose_json` is OpenAI's, with the language's English name.
Times become whole milliseconds before anything else, so no rounding shows 60 seconds. What may not stand in a cue, line
breaks and in WebVTT the signs of its tags, is replaced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamarunner.dialects import openai
from llamarunner.dialects.languages import NAMES
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import Dialect, sse
from llamarunner.errors import InvalidRequest, LlamaRunnerError, ServerError

DONE = b"data: [DONE]\n\n"
JSON = "application/json"
SPACELESS = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})  # languages that write no spaces
LEAST_PROBABILITY = 1e-10


class InvalidAudio(InvalidRequest):
    """The file is no recording that can be heard."""

    code = "invalid_audio"


class AudioTooShort(InvalidRequest):
    code = "audio_too_short"


class AudioTooLong(InvalidRequest):
    code = "audio_too_long"


_FAULTS: Mapping[str, type[InvalidRequest]] = {
    kind.code: kind for kind in (InvalidRequest, InvalidAudio, AudioTooShort, AudioTooLong)
}


@dataclass(frozen=True, slots=True)
class Word:
    word: str
    start: float  # seconds
    end: float
    probability: float

    def timed(self) -> dict[str, object]:
        return {"word": self.word.strip(), "start": self.start, "end": self.end}

    def logprob(self) -> dict[str, object]:
        """The word as OpenAI tells a token: Whisper's words are what their probabilities are known of."""
        logarithm = math.log(max(self.probability, LEAST_PROBABILITY))
        return {"token": self.word, "logprob": round(logarithm, 6), "bytes": list(self.word.encode())}


@dataclass(frozen=True, slots=True)
class Segment:
    """A phrase, with what Whisper says of it; times in seconds, `seek` in hundredths."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] = ()

    def verbose(self) -> dict[str, object]:
        names = ("id", "seek", "start", "end", "text", "tokens", "temperature")
        measures = ("avg_logprob", "compression_ratio", "no_speech_prob")
        return {name: getattr(self, name) for name in names + measures}

    def plain(self) -> dict[str, object]:
        return {"start": self.start, "end": self.end, "text": self.text.strip()}


@dataclass(slots=True)
class Transcript:
    """All that was heard so far."""

    task: str = "transcribe"  # or translate
    segments: list[Segment] = field(default_factory=list)
    language: str | None = None  # Whisper's code; None if nothing was said
    duration: float = 0.0  # seconds
    whole_duration: float | None = None  # what the file says of it
    complete: bool = False
    _parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._parts).rstrip()

    def take(self, line: Mapping[str, Any]) -> str:
        """Take one line of the worker, and return what it adds to the text. Raises what an error line means."""
        kind = line["type"]
        if kind == "error":
            raise _fault(line)
        if kind == "segment":
            return self._add(line)
        self.duration = line.get("seconds", line["duration"])
        if kind == "progress":
            self.whole_duration = line["duration"]
        else:
            self.language = line["language"]
            self.complete = True
        return ""

    def _add(self, line: Mapping[str, Any]) -> str:
        words = tuple(Word(**word) for word in line.get("words") or ())
        known = {name: line[name] for name in Segment.__dataclass_fields__ if name != "words"}
        self.segments.append(Segment(**known, words=words))
        self.language = line["language"]
        text = str(line["text"])
        if not self._parts:
            text = text.lstrip()
        elif text and not text[0].isspace() and not self._parts[-1][-1:].isspace() and self.language not in SPACELESS:
            text = " " + text
        if text:
            self._parts.append(text)
        return text

    @property
    def words(self) -> Iterator[Word]:
        return (word for segment in self.segments for word in segment.words)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a transcript is to be told."""

    segments: bool = True
    words: bool = False
    logprobs: bool = False


class Lines:
    """Cuts a stream of bytes into lines of JSON; empty ones are only signs of life."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return (json.loads(line) for line in lines if line.strip())


def as_json(heard: Transcript, wanted: Wanted) -> dict[str, object]:
    if heard.task == "translate":
        return {"text": heard.text, "language": "en", "duration": heard.duration}
    told: dict[str, object] = {"text": heard.text, "language": heard.language, "duration": heard.duration}
    told["segments"] = [segment.plain() for segment in heard.segments]
    return told | _words(heard, wanted) | {"usage": _usage(heard)}


def as_verbose_json(heard: Transcript, wanted: Wanted) -> dict[str, object]:
    translated = heard.task == "translate"
    language = "english" if translated else NAMES.get(heard.language or "")
    told: dict[str, object] = {"task": heard.task, "language": language, "duration": heard.duration, "text": heard.text}
    if wanted.segments:
        told["segments"] = [segment.verbose() for segment in heard.segments]
    return told | _words(heard, wanted) | ({} if translated else {"usage": _usage(heard)})


def as_srt(heard: Transcript) -> str:
    cues = (f"{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{text}" for segment, text in _cues(heard))
    return "".join(f"{number}\n{cue}\n\n" for number, cue in enumerate(cues, start=1))


def as_vtt(heard: Transcript) -> str:
    cues = (
        f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_escaped(text)}\n\n"
        for segment, text in _cues(heard)
    )
    return "WEBVTT\n\n" + "".join(cues)


FORMATS: Mapping[str, tuple[str, Callable[[Transcript, Wanted], bytes]]] = {
    "json": (JSON, lambda heard, wanted: dumps(as_json(heard, wanted))),
    "verbose_json": (JSON, lambda heard, wanted: dumps(as_verbose_json(heard, wanted))),
    "text": ("text/plain; charset=utf-8", lambda heard, _: f"{heard.text}\n".encode()),
    "srt": ("application/x-subrip; charset=utf-8", lambda heard, _: as_srt(heard).encode()),
    "vtt": ("text/vtt; charset=utf-8", lambda heard, _: as_vtt(heard).encode()),
}
"""By `response_format`: the content type, and the answer's body."""


def delta_event(text: str, words: tuple[Word, ...] | None = None) -> bytes:
    logprobs = {} if words is None else {"logprobs": [word.logprob() for word in words]}
    return sse(dumps({"type": "transcript.text.delta", "delta": text, **logprobs}))


def done_event(heard: Transcript, wanted: Wanted) -> bytes:
    """The last event, with all that an answer in JSON has, and the mark that some clients wait for."""
    return sse(dumps({"type": "transcript.text.done", **as_json(heard, wanted)})) + DONE


def error_event(error: LlamaRunnerError, request_id: str) -> bytes:
    return sse(dumps({"type": "error", "error": openai.error_object(error)})) + DONE


TRANSCRIPTION = Dialect("transcription", openai.error_body, error_event)


def _words(heard: Transcript, wanted: Wanted) -> dict[str, object]:
    told: dict[str, object] = {}
    if wanted.words:
        told["words"] = [word.timed() for word in heard.words]
    if wanted.logprobs:
        told["logprobs"] = [word.logprob() for word in heard.words]
    return told


def _usage(heard: Transcript) -> dict[str, object]:
    return {"type": "duration", "seconds": math.ceil(heard.duration)}


def _cues(heard: Transcript) -> Iterator[tuple[Segment, str]]:
    """The segments that say something, each with its text in one line."""
    for segment in heard.segments:
        if text := " ".join(segment.text.split()):
            yield segment, text.replace("-->", "→")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, mark: str) -> str:
    minutes, milliseconds = divmod(round(max(seconds, 0.0) * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _fault(line: Mapping[str, Any]) -> LlamaRunnerError:
    if kind := _FAULTS.get(line["code"]):
        return kind(line["message"], param=line["param"])
    return ServerError(line["message"])
