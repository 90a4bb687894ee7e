"""One recording on its way to text: slice by slice, each in a thread, with its news told as they come.

A slice longer than one window is decoded in batches of windows, which keeps all cores busy; a shorter one as Whisper
does it, with a second try at another temperature where the first is poor. Text is never conditioned on the text before:
one mistake would otherwise be repeated to the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline

from llamarunner.workers.whisper_audio import RATE, BadAudio, Recording, Slice
from llamarunner.workers.whisper_model import Cancelled, Model

Line = dict[str, Any]
LEAST_TEMPERATURE = 1e-3  # below, where the sampling would overflow, it counts as 0
SILENCE = 1e-4  # of full scale
ENGLISH_ONLY = "This model knows English only"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to do with which recording; the fields of the request's JSON."""

    path: str
    task: str = "transcribe"  # or translate, to English
    language: str | None = None  # Whisper's code; None detects it
    prompt: str = ""
    hotwords: str = ""
    temperature: float = 0.0
    words: bool = False  # tell the times of words
    vad: Mapping[str, Any] | None = None  # None hears everything, {} skips silence; its keys are those of VadOptions
    most_seconds: float = 4 * 3600
    client: str = ""  # whose turn it is


class Transcription:
    """Call `step` until it returns False; at any time `cancel`, from any thread; at last `close`."""

    def __init__(self, model: Model, asked: Asked, tell: Callable[[Line], None]) -> None:
        self._model = model
        self._asked = asked
        self._tell = tell
        self._cancelled = threading.Event()
        self._recording: Recording | None = None
        self._language = asked.language
        self._segments = 0
        self._end = 0.0

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        if self._recording:
            self._recording.close()
            self._recording = None

    def step(self) -> bool:
        """Hear the next slice; False when all is told, also that it went wrong. Raises Cancelled."""
        self._model.interruptible(self._check)
        try:
            if self._recording is None:
                self._open()
            assert self._recording
            found = next(self._slices, None)
            if found is not None:
                self._hear(found)
                self._end = found.end
                whole = self._recording.duration
                self._tell({"type": "progress", "seconds": round(found.end, 3), "duration": whole})
                return True
            self._tell({"type": "done", "language": self._language, "duration": round(self._end, 3)})
        except BadAudio as fault:
            self._tell({"type": "error", "code": fault.code, "message": str(fault), "param": fault.param})
        return False

    def _open(self) -> None:
        if not self._model.multilingual:
            self._refuse_other_languages()
        self._recording = Recording(self._asked.path, self._asked.most_seconds)
        self._slices = self._recording.slices(self._check)

    def _refuse_other_languages(self) -> None:
        if self._asked.task == "translate":
            raise BadRequest("model", f"{ENGLISH_ONLY} and cannot translate.")
        if self._asked.language not in (None, "en"):
            raise BadRequest("language", f"{ENGLISH_ONLY}.")

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def _hear(self, found: Slice) -> None:
        asked, model = self._asked, self._model
        vad = None if asked.vad is None else dict(asked.vad)
        if vad is not None and not np.any(np.abs(found.samples) > SILENCE):
            return  # there is nothing to look for
        options: dict[str, Any] = {
            "task": asked.task,
            "language": self._language,
            "beam_size": model.beam_size,
            "initial_prompt": model.plain(asked.prompt),
            "hotwords": model.hotwords(asked.hotwords),
            "word_timestamps": asked.words,
            "vad_filter": vad is not None,
            "vad_parameters": vad or None,
            "condition_on_previous_text": False,
            "without_timestamps": False,
        }
        if asked.temperature >= LEAST_TEMPERATURE:
            options["temperature"] = asked.temperature
        hearing: Any = model.whisper
        if vad is not None and model.batch_size > 1 and len(found.samples) > model.window_seconds * RATE:
            hearing, options["batch_size"] = BatchedInferencePipeline(model.whisper), model.batch_size
        segments, about = hearing.transcribe(found.samples, **options)
        self._tell_segments(segments, about.language, found)

    def _tell_segments(self, segments: Iterable[Any], language: str, found: Slice) -> None:
        for segment in segments:
            self._check()
            self._language = self._language or language
            self._tell(_segment(segment, self._segments, found) | {"language": self._language})
            self._segments += 1


class BadRequest(BadAudio):
    """A field of the request is at fault."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__("invalid_request", message)
        self.param = param


def _segment(segment: Any, number: int, found: Slice) -> Line:
    """Write a segment as OpenAI does, with its time in the whole recording."""
    line: Line = {
        "type": "segment",
        "id": number,
        "seek": int(segment.seek + found.offset * 100),
        "start": _time(segment.start, found),
        "end": _time(segment.end, found),
        "text": segment.text,
        "tokens": [int(token) for token in segment.tokens],
        "temperature": float(segment.temperature or 0.0),
        "avg_logprob": float(segment.avg_logprob),
        "compression_ratio": float(segment.compression_ratio),
        "no_speech_prob": float(segment.no_speech_prob),
    }
    if segment.words is not None:
        line["words"] = [
            {
                "word": word.word,
                "start": _time(word.start, found),
                "end": _time(word.end, found),
                "probability": float(word.probability),
            }
            for word in segment.words
        ]
    return line


def _time(seconds: float, found: Slice) -> float:
    return round(min(float(seconds) + found.offset, found.end), 3)
