"""Work that callers share, and what each of them hears."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from llamarunner.errors import ServerError
from llamarunner.library import Line, PullFailed
from llamarunner.library.flights import TELL_SECONDS, Flights, Tell, Work


async def follow(flights: Flights, work: Work, key: str = "a") -> list[Line]:
    async with aclosing(flights.join(key, work)) as lines:
        return [line async for line in lines]


def progress(done: int, total: int = 1000) -> Line:
    return {"status": "pulling", "digest": "sha256:d", "total": total, "completed": done}


async def test_progress_is_told_now_and_then_and_its_end_always() -> None:
    async def work(tell: Tell) -> None:
        for done in range(1, 1001):
            tell(progress(done))
            await asyncio.sleep(0)
        tell({"status": "success"})

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        lines = await follow(Flights(group), work)
    assert len(lines) <= 4 + (time.monotonic() - began) / TELL_SECONDS
    assert lines[-2:] == [progress(1000), {"status": "success"}]


async def test_the_newest_progress_is_told_before_a_silence() -> None:
    silence = asyncio.Event()

    async def work(tell: Tell) -> None:
        tell(progress(1))
        tell(progress(2))
        await silence.wait()

    async with asyncio.TaskGroup() as group, asyncio.timeout(5), aclosing(Flights(group).join("a", work)) as lines:
        async for line in lines:
            if line == progress(2):
                break
    assert not silence.is_set()


async def test_who_comes_late_hears_all_that_counts() -> None:
    go_on = asyncio.Event()

    async def work(tell: Tell) -> None:
        tell({"status": "one"})
        for done in (1, 2, 3):
            tell(progress(done))
        tell({"status": "two"})
        await go_on.wait()

    async with asyncio.TaskGroup() as group:
        flights = Flights(group)
        async with aclosing(flights.join("a", work)) as early:
            first = [await anext(early) for _ in range(3)]
            late = group.create_task(follow(flights, work))
            await asyncio.sleep(0)
            go_on.set()
            assert [line async for line in early] == []
        assert await late == first == [{"status": "one"}, progress(3), {"status": "two"}]


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [(PullFailed("no"), PullFailed, "no"), (KeyError("secret"), ServerError, "the pull failed: KeyError")],
)
async def test_what_goes_wrong_is_told_to_all_and_ends_nothing_else(
    fault: Exception, kind: type[Exception], text: str
) -> None:
    async def work(_: Tell) -> None:
        await asyncio.sleep(0)
        raise fault

    async def well(tell: Tell) -> None:
        await asyncio.sleep(0.01)
        tell({"status": "success"})

    async with asyncio.TaskGroup() as group:
        flights = Flights(group)
        callers = [follow(flights, work), follow(flights, work), follow(flights, well, "b")]
        told: list[Any] = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(one) for one in told[:2]] == [kind, kind]
        assert {str(one) for one in told[:2]} == {text}
        assert told[2] == [{"status": "success"}]
        assert await follow(flights, well) == [{"status": "success"}]  # a new one under the same key
