"""`python -m models.recipes.whisper.fixtures [FOLDER]`: the recordings that the tests hear, with what is said in them.

Nothing is chosen by listening to the model: the same voices say the same words each time.
"""

from __future__ import annotations

import json
import math
import sys
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..recipe import MODELS
from . import words
from .espeak import RATE, Speaker, Voice
from .phrases import SPEC

FOLDER = MODELS.parent / "tests" / "fixtures" / "speech"
_PAUSE = 0.6  # seconds between phrases


@dataclass(frozen=True, slots=True)
class Said:
    """A phrase and when it is said, in seconds; `words` is where each word begins, null where nobody knows."""

    text: str
    start: float
    end: float
    words: list[float | None]


@dataclass(frozen=True, slots=True)
class Script:
    """What to record: phrases of one voice with pauses between them."""

    file: str
    language: str
    voice: Voice
    phrases: tuple[str, ...]


SCRIPTS = (
    Script("transcription.wav", "en", Voice("en-us"), SPEC[:1]),
    Script("translation.wav", "en", Voice("en+f2"), SPEC[1:]),
    Script("colours.wav", "en", Voice("en-us+m3"), ("red blue yellow",)),
    Script("german.wav", "de", Voice("de"), ("drei sechs vier",)),
    Script(
        "long.wav",
        "en",
        Voice("en-us", words_a_minute=160),
        ("turn the light off", "seven three nine", "the door is open", "play the music on friday", "stop"),
    ),
)


def _sound(samples: NDArray[np.float32]) -> tuple[int, int]:
    """The first sample that can be heard and the one after the last."""
    loud = np.nonzero(np.abs(samples) > 0.01)[0]
    return int(loud[0]), int(loud[-1]) + 1


def record(script: Script, speaker: Speaker) -> tuple[NDArray[np.float32], list[Said]]:
    """The recording and what is said when."""
    parts, said, at = [], [], 0.0
    for phrase in script.phrases:
        samples, begins = speaker.say(phrase, script.voice)
        first, last = _sound(samples)
        begins[0] = first / RATE
        known = [round(at + begin, 2) if not math.isnan(begin) else None for begin in begins]
        said.append(Said(phrase, round(at + first / RATE, 2), round(at + last / RATE, 2), known))
        parts.append(np.concatenate([samples[:last], np.zeros(int(RATE * _PAUSE), np.float32)]))
        at += len(parts[-1]) / RATE
    return np.concatenate(parts), said


def save(path: Path, samples: NDArray[np.float32]) -> None:
    """As 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def write(folder: Path) -> None:
    """The recordings, a second of silence, and `fixtures.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    speaker, told = Speaker(), []
    for script in SCRIPTS:
        samples, said = record(script, speaker)
        save(folder / script.file, samples)
        text = " ".join(script.phrases)
        entry: dict[str, Any] = {"file": script.file, "language": script.language, "text": text}
        if script.language == "de":
            entry["translation"] = " ".join(words.IN_ENGLISH[word] for word in text.split())
        told.append(entry | {"seconds": round(len(samples) / RATE, 2), "segments": [asdict(phrase) for phrase in said]})
    save(folder / "silence.wav", np.zeros(RATE, np.float32))
    told.append({"file": "silence.wav", "language": None, "text": "", "seconds": 1.0, "segments": []})
    (folder / "fixtures.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
