"""What follows from an attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.config import WebhookSettings
from llamarunner.errors import InvalidRequest
from llamarunner.webhooks import policy
from llamarunner.webhooks.policy import Verdict

SETTINGS = WebhookSettings()
DAY = 86_400


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_only_2xx_is_a_success(status: int) -> None:
    assert policy.judge(status, 10 * DAY, SETTINGS) is Verdict.DELIVERED


@pytest.mark.parametrize("status", [None, 101, 199, 300, 301, 302, 304, 307, 400, 401, 404, 429, 500, 502, 503, 504])
def test_everything_else_is_tried_again_for_a_day(status: int | None) -> None:
    assert policy.judge(status, 0, SETTINGS) is Verdict.RETRY
    assert policy.judge(status, DAY - 1, SETTINGS) is Verdict.RETRY
    assert policy.judge(status, DAY, SETTINGS) is Verdict.GIVEN_UP


def test_410_ends_it() -> None:
    assert policy.judge(410, 0, SETTINGS) is Verdict.GONE


def test_pauses_grow_to_an_hour_and_a_day_of_them_ends() -> None:
    pauses = [policy.pause(failures, None, SETTINGS, 0.5) for failures in range(1, 10)]
    assert pauses == [5, 15, 45, 135, 405, 1215, 3600, 3600, 3600]
    waited, attempts = 0.0, 1
    while policy.judge(None, waited, SETTINGS) is Verdict.RETRY:
        waited += policy.pause(attempts, None, SETTINGS, 0.5)
        attempts += 1
    assert attempts == 31
    assert DAY <= waited <= DAY + 3600


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.01, 3600))
def test_pauses_are_spread_and_bounded(failures: int, dice: float, base: float) -> None:
    settings = WebhookSettings(retry_base_seconds=base)
    middle = policy.pause(failures, None, settings, 0.5)
    assert 0.79 * middle <= policy.pause(failures, None, settings, dice) <= 1.21 * middle
    assert base * 0.99 <= middle <= 3600
    assert policy.pause(failures, None, settings, 0) < policy.pause(failures, None, settings, 1)


def test_what_the_target_asks_for_is_granted_up_to_a_day() -> None:
    assert policy.pause(1, 100, SETTINGS, 0.5) == 100
    assert policy.pause(1, 1, SETTINGS, 0.5) == 5
    assert policy.pause(1, 1e9, SETTINGS, 0.5) == DAY


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("9" * 50, 999_999_999),
        ("Fri, 21 Nov 2025 10:00:30 GMT", 30),
        ("Fri, 21 Nov 2025 09:00:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("٣", None),
        ("1.5", None),
    ],
)
def test_retry_after_in_seconds_and_as_a_date(header: str | None, seconds: float | None) -> None:
    assert policy.retry_after(header, 1_763_719_200.0) == seconds


@given(st.text())
def test_no_header_breaks_the_reading(header: str) -> None:
    seconds = policy.retry_after(header, 0)
    assert seconds is None or seconds >= 0


def test_globs_choose_events() -> None:
    assert policy.wants(["model.*"], "model.started")
    assert policy.wants(["server.started", "*.failed"], "model.failed")
    assert not policy.wants(["model.*"], "server.started")
    assert not policy.wants([], "model.started")


def test_the_events_of_the_specification_are_known() -> None:
    policy.check_events(["model.started", "model.stopped", "transcription.completed", "*", "trans*", "server.*"])
    assert "request.finished" not in policy.EVENTS


@pytest.mark.parametrize("glob", ["model.start", "models.*", "", "webhook.test", "MODEL.STARTED", "request.finished"])
def test_a_glob_that_no_event_matches_is_refused(glob: str) -> None:
    with pytest.raises(InvalidRequest, match=r"model\.started") as caught:
        policy.check_events(["model.*", glob])
    assert caught.value.param == "events"
