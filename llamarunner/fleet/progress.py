"""How far a model is from being ready, told alike to those who ask and to those who are refused meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from llamarunner.errors import NotReady
from llamarunner.fleet.child import Child
from llamarunner.fleet.unit import State, Unit

Stage = Literal["queued", "starting", "loading"]

RETRY_SECONDS = (1.0, 60.0)  # bounds of Retry-After


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load has come."""

    stage: Stage  # queued: waits for room, for the end of another process, or for its next try; starting: says nothing
    fraction: float | None  # of the weights, from 0 to 1, if the runtime tells
    seconds: float | None  # since the process was started
    estimate_seconds: float | None  # until it is ready; null if nothing is known to tell it from


def progress(unit: Unit, child: Child | None, now: float) -> Progress | None:
    """Tell how far a unit is from being ready; None for one that is. `now` is `time.monotonic()`.

    The estimate goes by the part that is read, else by how long it took the last time. A load that takes longer than
    that has none: the last time says nothing of its rest.
    """
    if unit.state is State.LOADED and not unit.draining:
        return None
    if unit.state is not State.LOADING:
        held = max(0.0, unit.not_before - now)
        usual = unit.load_seconds if unit.state is State.ERROR else None  # room has no time at which it comes
        return Progress("queued", None, None, _rounded(usual and held + usual))
    if child is None:
        return Progress("starting", None, None, _rounded(unit.load_seconds))
    seconds, fraction = now - child.spawned_at, child.log.loaded_fraction()
    stage: Stage = "loading" if child.log.tail(1) else "starting"
    return Progress(stage, fraction, _rounded(seconds), _rounded(_left(seconds, fraction, unit.load_seconds)))


def explain(error: NotReady, found: Progress | None) -> None:
    """Let an error say how far the model is, and when to ask again."""
    if found is None:
        return
    error.details = {"loading": asdict(found)}
    if found.estimate_seconds is not None:
        shortest, longest = RETRY_SECONDS
        error.retry_after = min(max(found.estimate_seconds, shortest), longest)


def _left(seconds: float, fraction: float | None, usual: float | None) -> float | None:
    if fraction:
        return seconds / fraction - seconds
    return usual - seconds if usual is not None and usual > seconds else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
