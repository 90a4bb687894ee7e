"""Speech from espeak-ng's library, with the moment at which each word begins.

The program `espeak-ng` does not tell where words begin; its library does (`speak_lib.h`), so it is called by `ctypes`.
It keeps its state in globals: one `Speaker` a process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from typing import Any, ClassVar

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16000  # samples a second of what `Speaker.say` gives
MISSING = (
    "libespeak-ng is missing. Install it: `apt install espeak-ng`, `dnf install espeak-ng`, `brew install espeak-ng`."
)

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the callback is called before espeak_Synth returns
_UTF8 = 1  # espeakCHARS_UTF8
_SPEED, _VOLUME, _PITCH = 1, 2, 3  # espeak_PARAMETER
_LAST, _WORD = 0, 1  # espeak_EVENT_TYPE


class _Event(ctypes.Structure):
    """`espeak_EVENT`."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Voice:
    """How to speak. `name` is a voice of espeak-ng with its variant (`en-us+f3`); the others are espeak-ng's units."""

    name: str
    pitch: int = 50
    words_a_minute: int = 150
    volume: int = 100


class Speaker:
    """espeak-ng, ready to speak."""

    def __init__(self, library: str | None = None, data: str | None = None) -> None:
        """Load the library and its data from these paths; without them, those of the system. Raises RuntimeError."""
        path = library or ctypes.util.find_library("espeak-ng")
        if path is None:
            raise RuntimeError(MISSING)
        self._library = ctypes.CDLL(path)
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data and data.encode(), 0)
        if self._rate <= 0:
            raise RuntimeError(f"espeak-ng cannot read its data, at {data or 'the usual place'}")
        self._callback = _Callback(self._take)  # kept: the library holds only a pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._samples: list[NDArray[np.int16]] = []
        self._words: list[tuple[int, int]] = []

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        at = 0
        while events[at].type != _LAST:
            if events[at].type == _WORD:
                self._words.append((events[at].text_position - 1, events[at].sample))
            at += 1
        return 0

    def say(self, text: str, voice: Voice) -> tuple[NDArray[np.float32], list[float]]:
        """Speech at `RATE`, and the second at which each word of `text` (cut at spaces) begins.

        NaN for a word that espeak-ng speaks as one with the word before, as it does with `of the`.
        """
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise ValueError(f"espeak-ng has no voice {voice.name}")
        for parameter, value in ((_SPEED, voice.words_a_minute), (_VOLUME, voice.volume), (_PITCH, voice.pitch)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._samples, self._words = [], []
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        begins = dict(reversed(self._words))  # the first event of a word counts
        seconds, position = [], 0
        for word in text.split(" "):
            seconds.append(begins[position] / self._rate if position in begins else float("nan"))
            position += len(word) + 1
        return _resampled(np.concatenate(self._samples), self._rate), seconds


def _resampled(samples: NDArray[np.int16], rate: int) -> NDArray[np.float32]:
    """The same at `RATE`, by the resampler that faster-whisper uses for files."""
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts).astype(np.float32) / np.float32(32768)
