"""The timer of an exchange, by itself. Its limits here are tens of milliseconds."""

from __future__ import annotations

import asyncio
import time

import pytest

from llamarunner.errors import BackendTimeout, RequestTimeout, ShuttingDown
from llamarunner.server.drain import Drain
from llamarunner.server.watch import Patience, Phase, Watch

SHORT = Patience({Phase.FIRST_BYTE: 0.05, Phase.NEXT_BYTE: 0.05, Phase.CLIENT: 0.05}, None)


@pytest.mark.parametrize(
    ("phase", "kind"),
    [(Phase.FIRST_BYTE, BackendTimeout), (Phase.NEXT_BYTE, BackendTimeout), (Phase.CLIENT, RequestTimeout)],
)
async def test_a_phase_that_lasts_too_long_ends_the_work(phase: Phase, kind: type[Exception]) -> None:
    async def work() -> None:
        async with Watch(SHORT) as watch:
            watch.phase(phase)
            await asyncio.Event().wait()

    started = time.monotonic()
    with pytest.raises(kind, match=r"0\.05 seconds"):
        await work()
    assert 0.05 <= time.monotonic() - started < 1


async def test_waiting_for_a_lease_has_no_limit_here() -> None:
    async with asyncio.timeout(1), Watch(SHORT):
        for _ in range(4):
            await asyncio.sleep(0.03)


async def test_progress_keeps_the_work_alive() -> None:
    patience = Patience(dict.fromkeys(SHORT.limits, 0.3), None)  # a busy machine may sleep late
    async with Watch(patience) as watch:
        for _ in range(20):
            watch.phase(Phase.CLIENT)
            watch.phase(Phase.NEXT_BYTE)
            await asyncio.sleep(0.02)
    assert watch.verdict is None


async def test_the_first_reason_counts() -> None:
    async def work() -> None:
        async with Watch(SHORT) as watch:
            watch.end(ShuttingDown("first"))
            watch.end(ShuttingDown("second"))
            await asyncio.Event().wait()

    with pytest.raises(ShuttingDown, match="first"):
        await work()


async def test_a_work_that_is_over_cannot_be_ended() -> None:
    async with Watch(SHORT) as watch:
        pass
    watch.end(ShuttingDown("late"))
    assert watch.verdict is None
    await asyncio.sleep(0)


async def test_a_time_out_of_the_work_itself_stays_one() -> None:
    with pytest.raises(TimeoutError):
        async with Watch(SHORT):
            raise TimeoutError


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        async with Watch(SHORT):
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_silence_is_filled_again_and_again_but_not_while_the_client_is_slow() -> None:
    pulses: list[float] = []
    patience = Patience({Phase.FIRST_BYTE: 9, Phase.NEXT_BYTE: 9, Phase.CLIENT: 9}, 0.04)
    async with Watch(patience, lambda: pulses.append(time.monotonic())) as watch:
        for _ in range(3):
            await asyncio.sleep(0.045)
        heard = len(pulses)
        watch.phase(Phase.CLIENT)
        for _ in range(3):
            await asyncio.sleep(0.045)
    assert 2 <= heard <= 4
    assert len(pulses) == heard


async def test_a_drain_is_idle_when_the_last_exchange_is_over() -> None:
    drain, watch = Drain(), Watch(SHORT)
    assert await drain.idle(0)
    with drain.counting(watch), drain.counting(Watch(SHORT)):
        assert len(drain) == 2
        assert not await drain.idle(0.01)
    assert await drain.idle(0)
