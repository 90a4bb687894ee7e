"""One OS process and its offspring: its output, its readiness, its end.

A child is spawned as the leader of a process group of its own, with an environment built from scratch. Everything it
prints is drained as it comes, however much that is, into a bounded log; nothing it prints can block it or us.

`Child.stop` is TERM to the group, a grace, KILL to the group, reap. Leaving `async with` does the same, also when
the task is cancelled, so a child never outlives the code that uses it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import psutil

from llamarunner.errors import LlamaRunnerError
from llamarunner.fleet import group
from llamarunner.fleet.keeping import MARKER
from llamarunner.fleet.launch import Endpoint, Launch
from llamarunner.fleet.output import MOST_LINES, Output, Pipes, cleaned
from llamarunner.fleet.unit import Death

PROBE_INTERVAL_SECONDS = 0.01
REAP_SECONDS = 5.0

Probe = Callable[[Endpoint, str], Awaitable[bool]]

# A dot for each hundredth of the weights that is read; newer builds print them only if asked to.
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
DOTS = re.compile(r"^\.{1,100}$", re.MULTILINE)
# What llama.cpp and the system print when there is not enough memory.
OUT_OF_MEMORY = re.compile(r"out of memory|(failed|unable) to allocate|cannot allocate|bad_alloc|MemoryError", re.I)
# The words of a child's log that say why it would not load; the first that matches speaks for it.
CAUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (OUT_OF_MEMORY, "there is not enough memory for it"),
    (re.compile(r"unknown model architecture: *'?([\w.-]+)'?"), "this runtime does not know its architecture '{}'"),
    (re.compile(r"invalid magic|not a valid GGUF|bad magic", re.I), "its file is not a GGUF model"),
    (
        re.compile(
            r"corrupted or incomplete|data is not within the file bounds|invalid payload size|bin is incomplete", re.I
        ),
        "its file is truncated",
    ),
    (re.compile(r"(?:invalid|unknown|unrecognized) arguments?:? *(\S+)", re.I), "the runtime refuses the option {}"),
    # Of our own worker, up to where a path begins.
    (re.compile(r"error: the model could not be loaded: ((?:(?! ?['\"]?(?:(?<!\w)[/~]|\b[A-Za-z]:[/\\])).)+)"), "{}"),
)


class LoadFailed(LlamaRunnerError):
    """A child that did not become ready; `death` says why."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.cause)
        self.death = death


class Log(asyncio.SubprocessProtocol):
    """Drains a child's output into that of its model, and watches for the announcement of its port.

    It keeps the last lines of this one life too: they tell how far a load is, and why the child died.
    """

    def __init__(self, announces: re.Pattern[str], output: Output) -> None:
        loop = asyncio.get_running_loop()
        self.announced: asyncio.Future[int] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.last_output = time.monotonic()
        self._announces = announces
        self._output = output
        self._life = Output()
        self._pipes = Pipes()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        self.last_output = time.monotonic()
        self._keep(self._pipes.feed(fd, cast(bytes, data)))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._keep(self._pipes.end(fd))

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def tail(self, lines: int) -> list[str]:
        """The last lines printed, also those without an end yet, without control characters."""
        return [*self._life.tail(lines), *map(cleaned, self._pipes.unfinished())][-lines:]

    def loaded_fraction(self) -> float | None:
        """How much of the weights is read, from 0 to 1; None if the runtime does not tell."""
        dots = DOTS.findall("\n".join(self.tail(200)))
        return len(dots[-1]) / 100 if dots else None

    def gpu_share(self) -> float:
        """The part of the layers that lie on graphics cards, from 0 to 1, as far as llama.cpp has told."""
        told = OFFLOADED.findall("\n".join(self.tail(MOST_LINES)))
        return int(told[-1][0]) / max(1, int(told[-1][1])) if told else 0.0

    def _keep(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self._life.add(lines)
        self._output.add(lines)
        if not self.announced.done():
            self._watch(lines)

    def _watch(self, lines: list[bytes]) -> None:
        for line in lines:
            if match := self._announces.search(line.decode(errors="replace")):
                self.announced.set_result(int(match["port"]))
                return


class Child:
    """A running child program. Use it as `async with await Child.spawn(…) as child`."""

    def __init__(self, transport: asyncio.SubprocessTransport, log: Log, launch: Launch, grace: float) -> None:
        self._transport = transport
        self._grace = grace
        self._blame: Death | None = None
        self.log = log
        self.launch = launch
        self.pid = transport.get_pid()
        self.spawned_at = time.monotonic()

    @classmethod
    async def spawn(cls, launch: Launch, grace: float, output: Output | None = None) -> Child:
        """Start the program; what it prints goes to `output` too. Raises LoadFailed if it cannot be executed."""
        log = Log(launch.announces, output or Output())
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: log,
                *launch.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,  # apart, so that no log line cuts into the announcement
                env={**launch.env, **MARKER},
                **group.spawn_options(),
            )
        except OSError as error:
            raise LoadFailed(Death(f"its runtime could not be started ({error.strerror})")) from error
        return cls(transport, log, launch, grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def alive(self) -> bool:
        return not self.log.exited.done()

    async def ready(self, probe: Probe, stall: float, limit: float) -> Endpoint:
        """Wait until the model is loaded; return where it listens.

        Raises LoadFailed when the child exits, when it shows no progress (neither output nor growth) for `stall`
        seconds, or after `limit` seconds in all.
        """
        progress = Progress(self, stall, limit)
        futures: set[asyncio.Future[Any]] = {self.log.announced, self.log.exited}
        while not self.log.announced.done():
            await asyncio.wait(futures, timeout=progress.check(), return_when=asyncio.FIRST_COMPLETED)
        endpoint = Endpoint(f"http://127.0.0.1:{self.log.announced.result()}", self.launch.api_key)
        while self.launch.health and not await probe(endpoint, self.launch.health):
            progress.check()
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        return endpoint

    @property
    def port(self) -> int | None:
        """Where it listens; None until it has said so."""
        announced = self.log.announced
        return announced.result() if announced.done() and not announced.cancelled() else None

    async def wait(self) -> Death:
        """Wait until the child exits by itself."""
        await asyncio.shield(self.log.exited)
        return self.autopsy()

    def kill(self, blame: Death) -> None:
        """End it now; `wait` will report `blame` instead of the signal."""
        self._blame = blame
        group.end(self.pid, hard=True)

    def autopsy(self) -> Death:
        """Why it exited, from its exit code and the last of its log."""
        if self._blame:
            return self._blame
        code = self._transport.get_returncode()
        printed = "\n".join(self.log.tail(50))
        how = f"exit code {code}" if code is None or code >= 0 else f"signal {-code} ({group.signal_name(-code)})"
        killed = code is not None and code == group.KILLED
        why = next((words.format(*found.groups()) for rule, words in CAUSES if (found := rule.search(printed))), None)
        if killed and not why:
            why = "somebody killed it, perhaps the system for lack of memory"
        cause = f"its process ended with {how}" + (f": {why}" if why else "")
        return Death(cause, out_of_memory=killed or bool(OUT_OF_MEMORY.search(printed)))

    async def stop(self) -> None:
        """End the child and its group: TERM, the grace, KILL, reap. Takes at most the grace and `REAP_SECONDS`."""
        try:
            if self.alive:
                group.end(self.pid, hard=False)
                await asyncio.wait({self.log.exited}, timeout=self._grace)
        finally:
            group.end(self.pid, hard=True)
            await asyncio.wait({self.log.exited}, timeout=REAP_SECONDS)
            self._transport.close()


class Progress:
    """Watches a load for signs of life: output, or a growing process."""

    def __init__(self, child: Child, stall: float, limit: float) -> None:
        self._child = child
        self._stall = stall
        self._limit = child.spawned_at + limit
        self._size = 0
        self._last = child.spawned_at

    def check(self) -> float:
        """Return the seconds until the next check is due; raise LoadFailed if the load is over or stuck."""
        if not self._child.alive:
            raise LoadFailed(self._child.autopsy())
        now = time.monotonic()
        self._last = max(self._last, self._child.log.last_output)
        if now >= self._last + self._stall and self._grew():
            self._last = now
        if now >= self._limit or now >= self._last + self._stall:
            raise LoadFailed(Death(f"it did not become ready within {now - self._child.spawned_at:.0f} s"))
        return min(self._limit, self._last + self._stall) - now

    def _grew(self) -> bool:
        try:
            size = int(psutil.Process(self._child.pid).memory_info().rss)
        except psutil.Error:
            return False
        before, self._size = self._size, size
        return size > before
