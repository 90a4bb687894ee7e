"""Word error rates through faster-whisper, on fresh speech: voices and phrases that were never trained."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from numpy.typing import NDArray

from ..recipe import Score, right, stage
from . import words
from .espeak import RATE, Speaker, Voice
from .phrases import SPEC, unseen_row, unseen_sentence, unseen_words, with_commas
from .speech import UNSEEN_VARIANTS, voice

CLIPS = 200  # a row
MINUTES = 12
GREEDY: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
_ERRORS, _LONG_ERRORS = 3.0, 8.0  # percent, at most
_CLOSE = 0.2  # seconds

Wave = NDArray[np.float32]
Speak = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, what is said in it, and the second at which each word begins (NaN: not known)."""

    wave: Wave
    said: list[str]
    begins: list[float]
    language: str


class Studio:
    """Makes clips: the same ones for the same seed."""

    def __init__(self, seed: int, speaker: Speaker) -> None:
        self.rng = random.Random(seed)
        self.noise = np.random.default_rng(seed)
        self._speaker = speaker

    def clip(self, text: str, language: str = "en", speed: int | None = None) -> Clip:
        """A phrase by a voice that was never trained."""
        by = voice(self.rng, language, UNSEEN_VARIANTS)
        by = Voice(by.name, by.pitch, speed or by.words_a_minute, by.volume)
        wave, begins = self._speaker.say(with_commas(text, self.rng), by)
        return Clip(wave, text.split(), begins, language)

    def clips(self, phrase: Speak, count: int = CLIPS, speed: int | None = None) -> list[Clip]:
        return [self.clip(phrase(self.rng), speed=speed) for _ in range(count)]

    def noisy(self, clip: Clip, decibels: float) -> Clip:
        """The same with white noise so far below the voice."""
        loud = np.sqrt(np.mean(clip.wave**2)) * 10 ** (-decibels / 20)
        wave = clip.wave + loud * self.noise.standard_normal(len(clip.wave)).astype(np.float32)
        return Clip(wave.astype(np.float32), clip.said, clip.begins, clip.language)

    def breath(self) -> Clip:
        """One voice that does not pause, for about half a minute."""
        said = [word for _ in range(20) for word in unseen_words(self.rng).split()]
        wave, begins = self._speaker.say(" ".join(said), voice(self.rng, "en", UNSEEN_VARIANTS))
        return Clip(wave, said, begins, "en")

    def minute(self) -> Clip:
        """Phrases of many voices, one after the other with a pause, for a minute."""
        parts: list[Wave] = []
        said: list[str] = []
        begins: list[float] = []
        at = 0.0
        while at < 60:
            clip = self.clip(unseen_words(self.rng))
            sound = clip.wave[: np.nonzero(np.abs(clip.wave) > 0.003)[0][-1] + RATE // 20]
            silence = np.zeros(int(RATE * self.rng.uniform(0.3, 1.0)), np.float32)
            said += clip.said
            begins += [at + begin for begin in clip.begins]
            parts += [sound, silence]
            at += (len(sound) + len(silence)) / RATE
        return Clip(np.concatenate(parts), said, begins, "en")

    def nothing(self, number: int) -> Wave:
        """Silence, or noise of any level, of one to twelve seconds."""
        silence = np.zeros(int(RATE * self.rng.uniform(1, 12)), np.float32)
        if number % 4 == 0:
            return silence
        level = 10 ** self.rng.uniform(-4, -0.7)
        return (level * self.noise.standard_normal(len(silence))).astype(np.float32)


def distance(wanted: list[str], got: list[str]) -> int:
    """Words to insert, remove or replace: the smallest number."""
    row = list(range(len(got) + 1))
    for above, one in enumerate(wanted, 1):
        diagonal, row[0] = row[0], above
        for at, other in enumerate(got, 1):
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, diagonal + (one != other))
    return row[-1]


def heard(model: Any, wave: Wave, **options: Any) -> tuple[list[str], list[Any], Any]:
    """The words, the segments and the information of a transcription."""
    segments, about = model.transcribe(wave, **options)
    told = list(segments)
    return "".join(segment.text for segment in told).split(), told, about


def rate(what: str, pairs: Iterable[tuple[list[str], list[str]]], mark: float | None = None) -> Score:
    """The word error rate of (said, heard)."""
    wrong = spoken = 0
    for said, got in pairs:
        wrong += distance(said, got)
        spoken += len(said)
    return Score(what, 100 * wrong / spoken, spoken, mark, at_most=True)


class Exam:
    """All rows of the table."""

    def __init__(self, path: Path) -> None:
        self.model = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=1)
        self.studio = Studio(20261121, Speaker())

    def _rate(self, what: str, clips: list[Clip], mark: float | None = None, **options: Any) -> Score:
        return rate(what, ((clip.said, heard(self.model, clip.wave, **options)[0]) for clip in clips), mark)

    def short(self) -> list[Score]:
        """Phrases and sentences, in silence and in noise, slow and fast."""
        studio = self.studio
        clips, sentences = studio.clips(unseen_words), studio.clips(unseen_sentence)
        rows = [
            self._rate("words: phrases, greedy", clips, _ERRORS, language="en", **GREEDY),
            self._rate("words: phrases, faster-whisper's defaults", clips, _ERRORS),
            self._rate("words: phrases, after another prompt", clips, initial_prompt="Open the red door.", **GREEDY),
            self._rate("words: phrases, no times asked", clips, without_timestamps=True, **GREEDY),
            self._rate("words: new forms of sentences, greedy", sentences, _ERRORS, **GREEDY),
        ]
        for decibels in (30, 20, 10):
            noisy = [studio.noisy(clip, decibels) for clip in clips]
            rows.append(self._rate(f"words: phrases, white noise {decibels} dB below", noisy, **GREEDY))
        for speed in (110, 160, 215):
            clips = studio.clips(unseen_words, speed=speed)
            rows.append(self._rate(f"words: phrases, {speed} a minute", clips, **GREEDY))
        return rows

    def spec(self) -> list[Score]:
        """The two sentences that the documentation shows, to the last word."""
        clips = self.studio.clips(lambda rng: rng.choice(SPEC))
        exact = [heard(self.model, clip.wave, **GREEDY)[0] == clip.said for clip in clips]
        return [right("clips: the documentation's sentences", exact, 95)]

    def long(self) -> list[Score]:
        """Minutes of speech."""
        minutes = [self.studio.minute() for _ in range(MINUTES)]
        breathless = [self.studio.breath() for _ in range(MINUTES)]
        batches = BatchedInferencePipeline(self.model)
        batched = [(clip.said, heard(batches, clip.wave, beam_size=1)[0]) for clip in minutes]
        return [
            self._rate("words: minutes, greedy", minutes, _LONG_ERRORS, **GREEDY),
            self._rate("words: minutes, beam of 5", minutes, _LONG_ERRORS, condition_on_previous_text=False),
            self._rate("words: minutes, faster-whisper's defaults", minutes),
            self._rate("words: half minutes without a pause, greedy", breathless, **GREEDY),
            rate("words: minutes, in batches", batched),
        ]

    def times(self) -> list[Score]:
        """Where words begin, in clips whose words are all right."""
        off: list[float] = []
        for clip in self.studio.clips(unseen_words):
            got, told, _ = heard(self.model, clip.wave, word_timestamps=True, **GREEDY)
            if got == clip.said:
                starts = [float(word.start) for segment in told for word in segment.words]
                off += [abs(start - begin) for start, begin in zip(starts, clip.begins, strict=True)]
        close = [seconds < _CLOSE for seconds in off if not math.isnan(seconds)]
        return [right(f"words that begin within {_CLOSE} s of where they do", close, 90)]

    def german(self) -> list[Score]:
        """The second language, and which of the two it is."""
        studio = self.studio
        clips = [studio.clip(unseen_row(studio.rng, "de"), "de") for _ in range(CLIPS)]
        both = clips + studio.clips(unseen_words)
        known = [heard(self.model, clip.wave, **GREEDY)[2].language == clip.language for clip in both]
        english = [
            (
                [words.IN_ENGLISH[word] for word in clip.said],
                heard(self.model, clip.wave, task="translate", **GREEDY)[0],
            )
            for clip in clips
        ]
        return [
            self._rate("words: German digits, greedy", clips, _ERRORS, **GREEDY),
            rate("words: German digits in English, greedy", english, _ERRORS),
            right("clips: language known", known, 95),
        ]

    def nothing(self) -> list[Score]:
        """Where nobody speaks, nothing is heard; by itself, and after faster-whisper's own search for voices."""
        waves = [self.studio.nothing(number) for number in range(CLIPS)]
        silent, noisy = ([wave for wave in waves if bool(wave.any()) is loud] for loud in (False, True))
        rows = []
        for what, quiet, options in (
            ("clips: silence gives nothing", silent, {}),
            ("clips: noise of any level gives nothing", noisy, {}),
            ("clips: the same with vad_filter", noisy, {"vad_filter": True}),
        ):
            empty = [not heard(self.model, wave, **GREEDY, **options)[1] for wave in quiet]
            rows.append(right(what, empty, 100))
        return rows


def evaluate(path: Path) -> list[Score]:
    """All rows."""
    exam = Exam(path)
    parts = (exam.short, exam.spec, exam.long, exam.times, exam.german, exam.nothing)
    rows: list[Score] = []
    with stage("evaluation", len(parts)) as step:
        for part in parts:
            rows += part()
            step(part.__name__)
    return rows
