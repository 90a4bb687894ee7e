"""Windows of sound to train on, cut as faster-whisper cuts them, with the tokens that make it go on in the right place.

faster-whisper hears a long recording in windows and decides from the times in the answer where the next one begins
(`_split_segments_by_timestamps`):

    <0.00> red blue <1.20>                  nothing follows: go on after the window
    <0.00> red blue <1.20><4.80>            something is cut by the window's end: go on at 1.20
    <0.00> seven of the many words <5.10><5.10>   the only phrase is cut: go on at the word that is not whole, 5.10

The third form keeps phrases that are longer than a window; it needs the moments at which words begin, and windows that
begin in the middle of a phrase are trained for it. A phrase that ends close to a window's end counts as cut, since
nobody can hear there whether it goes on.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .speech import MELS, QUIETEST, Phrase

Frames = NDArray[np.float32]
_SEEN_SILENCE = 20  # frames after a phrase that show that it is over
_PADDING = 4  # frames; see Whisper.encode


@dataclass(slots=True)
class Span:
    """Words and the frames from the first to the last of them."""

    begin: int
    end: int
    words: list[str]


@dataclass(slots=True)
class Window:
    """What is heard, and what is to be told of it."""

    frames: Frames  # (time + padding) x MELS, as faster-whisper gives them to the model
    language: str | None  # None: nobody speaks
    spans: list[Span] = field(default_factory=list)
    go_on: int | None = None  # the frame named last, where the end of the window cuts a phrase
    words: list[str] = field(default_factory=list)  # all that are whole, of cut phrases too


class Windows:
    """Makes windows of recorded phrases, without end."""

    def __init__(self, phrases: list[Phrase], speeches: list[Phrase], seed: int) -> None:
        """`speeches` are longer than a window may be; they are used in conversations only."""
        self.rng = random.Random(seed)
        self._noise = np.random.default_rng(seed)
        self._phrases, self._speeches = (
            {code: [phrase for phrase in some if phrase.language == code] for code in ("en", "de")}
            for some in (phrases, speeches)
        )

    def window(self, length: int, alone: bool) -> Window:
        """A window of so many frames; `alone`: with one whole phrase at most."""
        sound = np.full((length + _PADDING, MELS), QUIETEST, np.float32)
        if self.rng.random() < 0.06:
            made, end = Window(sound, None), self.rng.randint(20, length)
        else:
            made = Window(sound, "de" if self.rng.random() < 0.2 else "en")
            end = self._one_phrase(made, length) if alone else self._conversation(made, length)
        self._disturb(made)
        made.frames = self._heard(sound, end)
        return made

    def _one_phrase(self, made: Window, length: int) -> int:
        """Place a phrase where it fits; returns the frame at which the recording ends."""
        while True:
            phrase = self.rng.choice(self._phrases[made.language or "en"])
            if phrase.end <= length:
                break
        at = self.rng.randint(0, min(100, length - phrase.end))
        self._place(made, phrase, at)
        self._tell(made, phrase, at, 0, length)
        return min(length, at + phrase.end + self.rng.randint(0, 60))

    def _conversation(self, made: Window, length: int) -> int:
        """Place phrases with pauses from a likely beginning on; returns the frame at which the recording ends."""
        language = made.language or "en"
        at, phrase, first = self._opening(made, language)
        wanted = self.rng.choice([1, 1, 2, 3, 9, 9, 9])
        while True:
            if at + phrase.begins[first] >= length:
                return length
            self._place(made, phrase, at)
            wanted, end = wanted - 1, at + phrase.end
            goes_on = wanted > 0 or self.rng.random() < 0.3
            if end > length - (_SEEN_SILENCE if goes_on else 0):
                self._tell_cut(made, phrase, at, first, length)
                return length
            self._tell(made, phrase, at, first, length)
            if not wanted:
                return length if goes_on else min(length, end + self.rng.randint(0, 60))
            phrase, first = self._any(language, speeches=0.08), 0
            at = end + self._pause() - int(phrase.begins[0])

    def _pause(self) -> int:
        return self.rng.randint(25, 110) if self.rng.random() < 0.95 else self.rng.randint(110, 300)

    def _any(self, language: str, speeches: float) -> Phrase:
        """A phrase, or with that probability a speech."""
        return self.rng.choice((self._speeches if self.rng.random() < speeches else self._phrases)[language])

    def _opening(self, made: Window, language: str) -> tuple[int, Phrase, int]:
        """Where the first phrase is placed, which it is, and its first word that counts.

        Windows begin at the beginning of a recording, where the last phrase ended, or where a word begins.
        """
        chance = self.rng.random()
        if chance < 0.3:
            phrase = self._any(language, speeches=0.7)
            cuttable = [at for at, begin in enumerate(phrase.begins) if not math.isnan(begin)]
            first = self.rng.choice(cuttable)
            return self.rng.randint(-3, 3) - int(phrase.begins[first]), phrase, first
        phrase = self._any(language, speeches=0.08)
        begin = int(phrase.begins[0])
        if chance < 0.5:
            before = self._any(language, speeches=0)
            end = self.rng.randint(-4, 5)
            self._place(made, before, end - before.end)
            return end + self._pause() - begin, phrase, 0
        late = self.rng.randint(0, 70) if chance < 0.95 else self.rng.randint(70, 400)
        return late - min(begin, 10), phrase, 0

    def _place(self, made: Window, phrase: Phrase, at: int) -> None:
        """Add the sound of a phrase, louder or quieter, as far as it lies inside the window."""
        length = len(made.frames) - _PADDING
        low, high = max(0, at), min(length, at + len(phrase.log_power))
        if low < high:
            part = phrase.log_power[low - at : high - at].astype(np.float32)
            made.frames[low:high] += np.power(10.0, part + self.rng.uniform(-0.6, 0.6))

    def _tell(self, made: Window, phrase: Phrase, at: int, first: int, length: int) -> None:
        begin = max(0, at + int(phrase.begins[first]))
        made.spans.append(Span(begin, min(length, at + phrase.end), phrase.words[first:]))
        made.words += phrase.words[first:]

    def _tell_cut(self, made: Window, phrase: Phrase, at: int, first: int, length: int) -> None:
        """A phrase that the window's end cuts: where it begins, or its whole words if nothing else is in the window."""
        begin = max(0, at + int(phrase.begins[first]))
        whole, until = first, begin
        for number in range(first + 1, len(phrase.words)):
            if at + phrase.begins[number] <= length - 4:  # never true of NaN
                whole, until = number, at + int(phrase.begins[number])
        said = phrase.words[first:whole]
        made.words += said
        if made.spans:
            made.go_on = begin if begin < length - 3 else None
        elif said:
            made.spans.append(Span(begin, until, said))
            made.go_on = until

    def _disturb(self, made: Window) -> None:
        """Add noise to most windows: from barely there to 5 dB below the voice, of any colour; to silence, any."""
        if self.rng.random() < 0.35:
            return
        sound = made.frames
        if made.language is None:
            level = 10 ** self.rng.uniform(-9, -1)
        else:
            level = float(np.mean(sound)) * 10 ** self.rng.uniform(-4.5, -0.3)
        tilt = np.power(10.0, np.linspace(0, self.rng.uniform(-2.5, 1), MELS))
        noise = tilt / tilt.mean() * self._noise.standard_gamma(1.5, size=sound.shape) / 1.5
        sound += (level * noise).astype(np.float32)

    def _heard(self, sound: Frames, end: int) -> Frames:
        """Whisper's scale: logarithm, eight decades at most below the loudest of the whole recording, padded with 0."""
        log = np.log10(np.maximum(sound * 10 ** self.rng.uniform(-2, 1), QUIETEST))
        loudest = log[:end].max() + (self.rng.uniform(0, 1) if self.rng.random() < 0.5 else 0)
        heard: Frames = ((np.maximum(log, loudest - 8) + 4) / 4).astype(np.float32)
        if self.rng.random() < 0.3:  # a few bands are missing, as in SpecAugment
            band = self.rng.randint(0, MELS - 10)
            heard[:end, band : band + self.rng.randint(2, 9)] = heard[:end].mean()
        heard[end:] = 0
        return heard
