"""Pulls that nobody waits for: how far they are, how they end, and how long they are remembered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest

from llamarunner.errors import ServiceUnavailable
from llamarunner.library import JobState, Line, PullFailed
from llamarunner.library.jobs import Jobs
from tests.conftest import eventually

FIRST, SECOND = ({"status": "pulling", "digest": name, "total": 50} for name in "ab")


class Pulls:
    """Tells lines as they are given, until it is told to end."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Line | PullFailed | None] = asyncio.Queue()
        self.names: list[str] = []
        self.closed = 0

    async def __call__(self, name: str) -> AsyncGenerator[Line, None]:
        self.names.append(name)
        try:
            while line := await self.lines.get():
                if isinstance(line, PullFailed):
                    raise line
                yield line
        finally:
            self.closed += 1


async def test_a_job_adds_up_what_its_files_say_and_what_was_there_is_not_its_speed() -> None:
    pulls = Pulls()
    async with asyncio.TaskGroup() as group:
        jobs = Jobs(pulls, group)
        job = jobs.begin("mario", 100)
        assert re.fullmatch(r"job_[0-9a-f]{10}", job.id)
        assert (job.state, job.done_bytes, job.ends_at()) == (JobState.DOWNLOADING, 0, None)
        for line in ({"status": "pulling manifest"}, {**FIRST, "completed": 50}, SECOND):
            pulls.lines.put_nowait(line)
        await eventually(lambda: job.done_bytes == 50)
        assert job.bytes_per_second() == 0
        pulls.lines.put_nowait({**SECOND, "completed": 25})
        await eventually(lambda: job.done_bytes == 75)
        assert job.bytes_per_second() > 0
        assert (job.ends_at() or 0) > job.started_at
        pulls.lines.put_nowait(None)
        await eventually(lambda: job.state is JobState.COMPLETED)
        assert (job.done_bytes, job.error, jobs.find(job.id)) == (100, None, job)
        assert (job.ended_at or 0) >= job.started_at


async def test_two_jobs_for_one_model_are_one_while_it_lasts() -> None:
    pulls = Pulls()
    async with asyncio.TaskGroup() as group:
        jobs = Jobs(pulls, group)
        job = jobs.begin("mario", 100)
        assert jobs.begin("Mario", 100) is job
        pulls.lines.put_nowait(None)
        await eventually(lambda: job.state is JobState.COMPLETED)
        assert jobs.begin("mario", 100) is not job
        pulls.lines.put_nowait(None)
    assert pulls.names == ["mario", "mario"]


async def test_a_failure_is_kept_in_the_job_and_harms_no_other() -> None:
    pulls = Pulls()
    async with asyncio.TaskGroup() as group:
        jobs = Jobs(pulls, group)
        job, other = jobs.begin("mario", 1), jobs.begin("luigi", 1)
        await eventually(lambda: len(pulls.names) == 2)
        pulls.lines.put_nowait(PullFailed("no"))
        pulls.lines.put_nowait(None)
        await eventually(lambda: {job.state, other.state} == {JobState.FAILED, JobState.COMPLETED})
        failed = job if job.state is JobState.FAILED else other
        assert failed.error is not None
        assert failed.error.message == "no"


async def test_jobs_are_bounded_in_number_and_age() -> None:
    pulls = Pulls()
    async with asyncio.TaskGroup() as group:
        jobs = Jobs(pulls, group, most_running=2, most_kept=1)
        first, second = jobs.begin("a", 1), jobs.begin("b", 1)
        with pytest.raises(ServiceUnavailable):
            jobs.begin("c", 1)
        pulls.lines.put_nowait(None)
        await eventually(lambda: JobState.COMPLETED in (first.state, second.state))
        pulls.lines.put_nowait(None)
        await eventually(lambda: first.state is second.state is JobState.COMPLETED)
        assert [jobs.find(one.id) for one in sorted((first, second), key=lambda one: one.ended_at or 0)] == [
            None,
            max((first, second), key=lambda one: one.ended_at or 0),
        ]
        short = Jobs(pulls, group, kept_seconds=0.0)
        job = short.begin("a", 1)
        pulls.lines.put_nowait(None)
        await eventually(lambda: job.state is JobState.COMPLETED)
        await eventually(lambda: short.find(job.id) is None)


async def test_cancelling_ends_all_pulls() -> None:
    pulls = Pulls()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        jobs = Jobs(pulls, group)
        jobs.begin("a", 1)
        await eventually(lambda: len(pulls.names) == 1)
        jobs.begin("b", 1)
        jobs.cancel()
    assert (pulls.names, pulls.closed) == (["a"], 1)
