"""One timer for each exchange, which ends what has fallen silent.

An exchange says what it is waiting for (`phase`), which costs a clock reading; the timer wakes now and then, compares,
and goes to sleep again. So a stream of a thousand tokens sets no thousand timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from llamarunner.config import ServerSettings
from llamarunner.errors import BackendTimeout, LlamaRunnerError, RequestTimeout


class Phase(Enum):
    """What an exchange is waiting for."""

    FETCH = auto()  # images, which has limits of its own
    LEASE = auto()  # the supervisor has its own limits
    FIRST_BYTE = auto()
    NEXT_BYTE = auto()
    CLIENT = auto()  # to take what was written
    NEWS = auto()  # which may never come


VERDICTS: dict[Phase, Callable[[float], LlamaRunnerError]] = {
    Phase.FIRST_BYTE: lambda seconds: BackendTimeout(f"The model gave no answer within {seconds:g} seconds."),
    Phase.NEXT_BYTE: lambda seconds: BackendTimeout(
        f"The model fell silent for {seconds:g} seconds in the middle of its answer."
    ),
    Phase.CLIENT: lambda seconds: RequestTimeout(f"The client took nothing of the answer for {seconds:g} seconds."),
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each phase may last, and after how much silence the client hears a pulse; in seconds."""

    limits: dict[Phase, float]
    pulse: float | None

    @classmethod
    def of(cls, settings: ServerSettings, pulse: bool) -> Patience:
        limits = {
            Phase.FIRST_BYTE: settings.first_token_seconds,
            Phase.NEXT_BYTE: settings.token_seconds,
            Phase.CLIENT: settings.write_stall_seconds,
        }
        return cls(limits, settings.sse_keepalive_seconds if pulse and settings.sse_keepalive_seconds else None)


class Watch:
    """Watches one exchange; use it around the work, as `async with Watch(…) as watch`.

    When a phase lasts too long, or `end` is called, the work is cancelled and leaving the block raises the reason,
    which is also kept in `verdict`. `pulse` is called when the client has heard nothing for a while.
    """

    def __init__(self, patience: Patience, pulse: Callable[[], None] | None = None) -> None:
        self.verdict: LlamaRunnerError | None = None
        self._limits = patience.limits
        self._pulse_after = patience.pulse if pulse else None
        self._pulse = pulse
        self._period = min(
            [*patience.limits.values(), *([patience.pulse] if self._pulse_after and patience.pulse else [])]
        )
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._scope = asyncio.timeout(None)
        self._phase = Phase.LEASE
        self._since = self._heard = self._time()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Watch:
        await self._scope.__aenter__()
        self._timer = self._loop.call_at(self._since + self._period, self._look)
        return self

    async def __aexit__(self, *details: object) -> None:
        assert self._timer
        self._timer.cancel()
        self._timer = None
        try:
            await self._scope.__aexit__(*details)  # type: ignore[arg-type]
        except TimeoutError:
            if self.verdict is None:
                raise
            raise self.verdict from None

    def phase(self, phase: Phase) -> None:
        """Say what the exchange waits for from now on."""
        if self._phase is Phase.CLIENT:
            self._heard = self._since = self._time()
        else:
            self._since = self._time()
        self._phase = phase

    def end(self, verdict: LlamaRunnerError) -> None:
        """Cancel the work for this reason; the first reason counts."""
        if self.verdict is None and self._timer is not None:
            self.verdict = verdict
            self._scope.reschedule(self._time())

    def _look(self) -> None:
        now = self._time()
        limit = self._limits.get(self._phase)
        if limit is not None and now >= self._since + limit:
            self.end(VERDICTS[self._phase](limit))
            return
        wake = now + self._period if limit is None else min(now + self._period, self._since + limit)
        if self._pulse_after and self._pulse and self._phase is not Phase.CLIENT:
            if now >= self._heard + self._pulse_after:
                self._heard = now
                self._pulse()
            wake = min(wake, self._heard + self._pulse_after)
        self._timer = self._loop.call_at(wake, self._look)
