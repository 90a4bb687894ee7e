"""Speech made while the tests run, by espeak-ng from its wheel: voices and phrases demo-whisper never trained on."""

from __future__ import annotations

import math
from functools import cache

import espeakng_loader
import numpy as np
from hearing import wav

from models.recipes.whisper.espeak import Speaker
from models.recipes.whisper.evaluation import Clip, Studio, distance

SEED = 20261122  # not that of the evaluation


@cache
def speaker() -> Speaker:
    """The library keeps its state in globals: one a process."""
    return Speaker(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())


def studio(seed: int = SEED) -> Studio:
    """Makes clips, the same for the same seed."""
    return Studio(seed, speaker())


def recorded(clip: Clip) -> bytes:
    """The clip as a file."""
    return wav((np.clip(clip.wave, -1, 1) * 32767).astype(np.int16))


def share_of_errors(pairs: list[tuple[list[str], list[str]]]) -> float:
    """The word error rate of (said, heard)."""
    return sum(distance(said, heard) for said, heard in pairs) / words_in(pairs)


def words_in(pairs: list[tuple[list[str], list[str]]]) -> int:
    return sum(len(said) for said, _ in pairs)


def at_most(percent: float, count: int) -> float:
    """So many percent, and what chance may add in so few cases: three standard deviations."""
    share = percent / 100
    return share + 3 * math.sqrt(share * (1 - share) / count)
