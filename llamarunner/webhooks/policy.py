"""What follows from an attempt to deliver, and what a webhook is told; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from enum import Enum
from fnmatch import fnmatchcase

from llamarunner import events
from llamarunner.config.webhooks import DAY, WebhookSettings
from llamarunner.errors import InvalidRequest

FACTOR = 3.0
LONGEST_PAUSE = 3600.0
TEST_EVENT = "webhook.test"
EVENTS = tuple(
    kind.name
    for kind in (
        events.ServerStarted,
        events.ServerStopping,
        events.ModelLoading,
        events.ModelStarted,
        events.ModelStopped,
        events.ModelFailed,
        events.TranscriptionCompleted,
        events.TranscriptionFailed,
    )
)
"""What can be told; single requests and progress are too many."""


class Verdict(Enum):
    """What becomes of a delivery after an attempt."""

    DELIVERED = "delivered"
    RETRY = "pending"
    GIVEN_UP = "failed"  # it was tried for long enough; the webhook is disabled
    GONE = "gone"  # the target wants no more; the webhook is disabled


def judge(status: int | None, waited: float, settings: WebhookSettings) -> Verdict:
    """Decide by the answer's status (None: there was none) and the seconds that the delivery has waited in all.

    Only 2xx is a success, and 410 ends it (Standard Webhooks 1.0).
    """
    if status is not None and 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 410:
        return Verdict.GONE
    return Verdict.GIVEN_UP if waited >= settings.retry_seconds else Verdict.RETRY


def pause(failures: int, asked: float | None, settings: WebhookSettings, dice: float) -> float:
    """Seconds until the next attempt after so many failed ones; `asked` is what the target's Retry-After wants.

    `dice` is from 0 to 1 and spreads the attempts by a fifth to both sides.
    """
    growth: float = FACTOR ** min(failures - 1, 20)
    nominal = min(settings.retry_base_seconds * growth, max(LONGEST_PAUSE, settings.retry_base_seconds))
    return max(nominal * (0.8 + 0.4 * dice), min(asked or 0.0, DAY))


def retry_after(header: str | None, now: float) -> float | None:
    """Read a Retry-After header, in seconds or as a date (RFC 9110); `now` is `time.time()`."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def wants(globs: Iterable[str], event: str) -> bool:
    """Tell whether a webhook with these globs is told an event."""
    return any(fnmatchcase(event, glob) for glob in globs)


def may_hear(scope: Iterable[Sequence[str]], model_id: str | None) -> bool:
    """Tell whether who has this scope, globs of which one of each must match, may hear of a model; None is of none."""
    if model_id is None:
        return True
    folded = model_id.casefold()
    return all(any(fnmatchcase(folded, glob.casefold()) for glob in globs) for globs in scope)


def check_events(globs: Sequence[str]) -> None:
    """Raise InvalidRequest for a glob that no event will ever match."""
    for glob in globs:
        if not any(fnmatchcase(event, glob) for event in EVENTS):
            known = ", ".join(EVENTS)
            raise InvalidRequest(
                f"'events' has {glob[:100]!r}, which no event matches. Known: {known}.", param="events"
            )
