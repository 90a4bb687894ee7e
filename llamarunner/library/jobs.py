"""Pulls that nobody waits for: jobs, which their owners ask about now and then."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum

from llamarunner.errors import LlamaRunnerError, ServiceUnavailable
from llamarunner.library.flights import Line

MOST_RUNNING = 16
MOST_KEPT = 100  # jobs that are over
KEPT_SECONDS = 86_400.0  # after their end

Pull = Callable[[str], AsyncGenerator[Line, None]]


class JobState(StrEnum):
    DOWNLOADING = "downloading"
    COMPLETED = "completed"
    FAILED = "failed"


class Job:
    """One download; read by anyone, written by its own task. Times are Unix times."""

    def __init__(self, name: str, total_bytes: int) -> None:
        self.id = f"job_{secrets.token_hex(5)}"
        self.name = name
        self.total_bytes = total_bytes
        self.started_at = time.time()
        self.ended_at: float | None = None
        self.state = JobState.DOWNLOADING
        self.error: LlamaRunnerError | None = None
        self._began = time.monotonic()
        self._here: dict[str, int] = {}  # bytes, by digest
        self._before: dict[str, int] = {}  # as many as there were when it began

    @property
    def done_bytes(self) -> int:
        return self.total_bytes if self.state is JobState.COMPLETED else sum(self._here.values())

    def bytes_per_second(self) -> float:
        """How fast it has been since its beginning; what was there already does not count."""
        brought = sum(self._here.values()) - sum(self._before.values())
        return brought / max(time.monotonic() - self._began, 0.001)

    def ends_at(self) -> float | None:
        """When it may be done; None if nothing is known to tell it from."""
        speed = self.bytes_per_second()
        return time.time() + (self.total_bytes - self.done_bytes) / speed if speed > 0 else None

    def hear(self, line: Line) -> None:
        """Take over what a line says of a file."""
        if digest := line.get("digest"):
            self._here[digest] = line.get("completed", 0)
            self._before.setdefault(digest, self._here[digest])

    def end(self, error: LlamaRunnerError | None) -> None:
        self.error, self.ended_at = error, time.time()
        self.state = JobState.FAILED if error else JobState.COMPLETED


class Jobs:
    """The jobs under way, and those that ended lately. Its tasks are the group's."""

    def __init__(
        self,
        pull: Pull,
        group: asyncio.TaskGroup,
        *,
        most_running: int = MOST_RUNNING,
        most_kept: int = MOST_KEPT,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self._pull = pull
        self._group = group
        self._most_running = most_running
        self._most_kept = most_kept
        self._kept_seconds = kept_seconds
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, total_bytes: int) -> Job:
        """Pull a model; a job that does so already is joined. Raises ServiceUnavailable if too many are under way."""
        if same := self.under_way(name):
            return same
        if len(self._running()) >= self._most_running:
            raise ServiceUnavailable("Too many downloads are under way. Try again later.", retry_after=60)
        self._forget()
        job = Job(name, total_bytes)
        self._jobs[job.id] = job
        task = self._group.create_task(self._follow(job), name=f"download {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def under_way(self, name: str) -> Job | None:
        """The job that pulls a model now."""
        return next((job for job in self._running() if job.name.casefold() == name.casefold()), None)

    def _running(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state is JobState.DOWNLOADING]

    def find(self, job_id: str) -> Job | None:
        """The job of an id, if it is not too long ago."""
        self._forget()
        return self._jobs.get(job_id)

    def cancel(self) -> None:
        """End all; what has come is kept for the next pull."""
        for task in self._tasks:
            task.cancel()

    async def _follow(self, job: Job) -> None:
        try:
            async with aclosing(self._pull(job.name)) as lines:
                async for line in lines:
                    job.hear(line)
        except LlamaRunnerError as error:
            job.end(error)
        else:
            job.end(None)

    def _forget(self) -> None:
        """Forget jobs that ended long ago, and the oldest of too many."""
        over = [job for job in self._jobs.values() if job.ended_at is not None]
        over.sort(key=lambda job: job.ended_at or 0.0)
        ancient = [job for job in over if (job.ended_at or 0.0) < time.time() - self._kept_seconds]
        surplus = over[: max(0, len(over) - self._most_kept)]
        for job in {*ancient, *surplus}:
            self._jobs.pop(job.id)
