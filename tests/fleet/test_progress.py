"""How far a model is: the estimate as values; what clients get of it through the doors is in test_loading."""

from __future__ import annotations

import math

import pytest

from llamarunner.errors import NotReady
from llamarunner.fleet.progress import Progress, explain, progress
from llamarunner.fleet.schedule import Schedule
from llamarunner.fleet.unit import Death, Rules, State, Terms, Unit

HOUR = Terms(ttl=3600.0)


def unit(state: State, **facts: object) -> Unit:
    made = Unit("a", HOUR, state)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def test_a_model_that_is_ready_has_no_progress_and_one_that_makes_way_waits_for_the_next_process() -> None:
    assert progress(unit(State.LOADED), None, 0.0) is None
    assert progress(unit(State.LOADED, draining="asked"), None, 0.0) == Progress("queued", None, None, None)


@pytest.mark.parametrize("state", [State.UNLOADED, State.STOPPING])
def test_nobody_knows_when_there_will_be_room(state: State) -> None:
    assert progress(unit(state, load_seconds=3.0), None, 0.0) == Progress("queued", None, None, None)


def test_a_model_that_failed_is_ready_after_its_pause_and_a_load_like_the_last() -> None:
    failed = unit(State.ERROR, not_before=10.0)
    assert progress(failed, None, 4.0) == Progress("queued", None, None, None)
    failed.load_seconds = 2.5
    assert progress(failed, None, 4.0) == Progress("queued", None, None, 8.5)
    assert progress(failed, None, 12.0) == Progress("queued", None, None, 2.5)


def test_the_schedule_keeps_how_long_the_last_load_took_that_succeeded() -> None:
    fleet = Schedule(Rules(2, 512, 600.0, 10.0), lambda: None, lambda: 1.0)
    fleet.ask(1, "a", HOUR, 100.0)
    assert progress(fleet.units["a"], None, 100.5) == Progress("starting", None, None, None)
    fleet.started("a", 103.0)
    fleet.leave(1, 104.0)
    fleet.stop("a", 105.0)
    fleet.ended("a", None, 106.0)
    fleet.ask(2, "a", HOUR, 200.0)
    fleet.ended("a", Death("exit code 1"), 209.0)
    fleet.ask(3, "a", HOUR, 300.0)
    assert progress(fleet.units["a"], None, 300.0) == Progress("starting", None, None, 3.0)


@pytest.mark.parametrize(("estimate", "header"), [(None, 5), (0.0, 1), (3.2, 4), (900.0, 60)])
def test_an_error_says_it_and_when_to_ask_again(estimate: float | None, header: int) -> None:
    error = NotReady("x", retry_after=5)
    explain(error, Progress("loading", 0.4, 1.0, estimate))
    told = {"stage": "loading", "fraction": 0.4, "seconds": 1.0, "estimate_seconds": estimate}
    assert error.details == {"loading": told}
    assert math.ceil(error.retry_after or 0) == header


def test_an_error_about_a_model_that_is_ready_stays_as_it_is() -> None:
    error = NotReady("x", retry_after=5)
    explain(error, None)
    assert (error.details, error.retry_after) == ({}, 5)
