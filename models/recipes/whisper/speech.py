"""Phrases spoken by many voices, kept as the frames that Whisper hears, with the frame at which each word begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from ..recipe import stage
from .espeak import RATE, Speaker, Voice
from .phrases import trained, trained_speech, with_commas
from .words import listed

FRAMES_A_SECOND = 100
MELS = 80
QUIETEST = 1e-10  # power; the floor of Whisper's log scale
ENGLISH_VOICES = listed("""en-us en en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029
en-us-nyc""")
VARIANTS = listed("""+m1 +m2 +m3 +m4 +m5 +m6 +m7 +f1 +f2 +f3 +f4 +klatt +klatt2 +klatt4 +adam +Alex +Andy +Annie
+belinda +david +edward +john +linda +Michael +paul +robert +steph2 +zac +victor""")
UNSEEN_VARIANTS = listed("+f5 +m8 +Andrea +benjamin +klatt3 +steph")
_FEATURES = FeatureExtractor()
_WINDOW = np.hanning(401)[:-1].astype(np.float32)


def voice(rng: random.Random, language: str, variants: list[str]) -> Voice:
    """A voice of the language, at any pitch, speed and loudness that people would choose."""
    base = rng.choice(ENGLISH_VOICES) if language == "en" else "de"
    return Voice(base + rng.choice(variants), rng.randint(15, 85), rng.randint(110, 215), rng.randint(40, 160))


def power(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Power in `MELS` bands, frame by frame, before Whisper takes its logarithm: frames x bands."""
    spectrum = _FEATURES.stft(wave, 400, RATE // FRAMES_A_SECOND, window=_WINDOW, return_complex=True)
    bands: NDArray[np.float32] = (_FEATURES.mel_filters @ (np.abs(spectrum[..., :-1]) ** 2).astype(np.float32)).T
    return bands


@dataclass(frozen=True, slots=True)
class Phrase:
    """Spoken words. Frames count from where the recording begins."""

    log_power: NDArray[np.float16]  # frames x MELS
    words: list[str]
    begins: list[float]  # frame of each word; NaN where it is spoken as one with the word before
    end: int  # the frame after the last sound
    language: str


def spoken(text: str, words: list[str], language: str, by: Voice, speaker: Speaker) -> Phrase:
    """`text` is `words` with pauses marked."""
    wave, seconds = speaker.say(text, by)
    bands = power(wave)
    level = bands.sum(1)
    loud = np.nonzero(level > level.max() * 1e-4)[0]
    begins = [second * FRAMES_A_SECOND for second in seconds]
    begins[0] = float(loud[0])
    log = np.log10(np.maximum(bands, QUIETEST)).astype(np.float16)
    return Phrase(log, words, begins, int(loud[-1]) + 1, language)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record. Recordings longer than `longest` frames are left out."""

    phrase: Callable[[random.Random, str], str]
    english: int
    german: int
    longest: int
    seed: int


PHRASES = Plan(trained, 30000, 5000, 700, seed=1)
SPEECHES = Plan(trained_speech, 2000, 300, 1500, seed=2)


def record(path: Path, plan: Plan) -> None:
    """Write what is planned to `path` (.npz)."""
    rng, speaker, phrases = random.Random(plan.seed), Speaker(), []
    with stage(path.stem, plan.english + plan.german) as step:
        for number in range(plan.english + plan.german):
            language = "en" if number < plan.english else "de"
            text = plan.phrase(rng, language)
            by = voice(rng, language, ["", *VARIANTS])
            phrase = spoken(with_commas(text, rng), text.split(), language, by, speaker)
            if len(phrase.log_power) <= plan.longest:
                phrases.append(phrase)
            step("")
    np.savez(
        path,
        log_power=np.concatenate([phrase.log_power for phrase in phrases]),
        lengths=[len(phrase.log_power) for phrase in phrases],
        ends=[phrase.end for phrase in phrases],
        languages=[phrase.language for phrase in phrases],
        words=[" ".join(phrase.words) for phrase in phrases],
        begins=np.concatenate([phrase.begins for phrase in phrases]),
    )


def recorded(path: Path) -> list[Phrase]:
    """What `record` wrote."""
    with np.load(path) as data:
        stored = {name: data[name] for name in data.files}
    phrases, frame, word = [], 0, 0
    for length, end, language, text in zip(
        stored["lengths"], stored["ends"], stored["languages"], stored["words"], strict=True
    ):
        words = str(text).split()
        begins = stored["begins"][word : word + len(words)].tolist()
        phrases.append(Phrase(stored["log_power"][frame : frame + length], words, begins, int(end), str(language)))
        frame, word = frame + length, word + len(words)
    return phrases
