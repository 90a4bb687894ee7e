"""Figures about processes and the machine: measured in a thread, and remembered for a second.

What a child was granted, its slots and their context, is asked once in its life; asking uses no slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import psutil

from llamarunner.fleet import memory
from llamarunner.fleet.launch import Endpoint
from llamarunner.server.client import BrokenOff, CannotConnect, Client

FRESH_SECONDS = 1.0
CPU_SECONDS = 0.1  # over which the processors are watched
ASK_SECONDS = 1.0
ENDPOINTS_KEPT = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """The whole machine, not only us."""

    cpu_percent: float  # of all processors
    used_bytes: int
    available_bytes: int  # that a new model could have


@dataclass(frozen=True, slots=True)
class Granted:
    """What a child really has, which may be less than was asked for."""

    slots: int | None = None
    context_length: int | None = None  # tokens that one request can use


class Figures:
    """Use it from the event loop; nothing here blocks it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._machine = Remembered(_measure_machine)
        self._trees: dict[int, Remembered[int]] = {}
        self._granted: dict[Endpoint, Granted] = {}

    async def machine(self) -> Machine:
        return await self._machine.get()

    async def tree_bytes(self, pids: Iterable[int]) -> int:
        """Memory in use by processes and all below them; those that are gone count nothing."""
        self._trees = {pid: one for pid, one in self._trees.items() if one.fresh}
        trees = [self._trees.setdefault(pid, Remembered(partial(_measure_tree, pid))) for pid in pids]
        return sum([await tree.get() for tree in trees])

    async def granted(self, endpoint: Endpoint) -> Granted:
        """Ask a child what it has; what it does not tell is None."""
        if known := self._granted.get(endpoint):
            return known
        props: Any = {}
        with contextlib.suppress(CannotConnect, BrokenOff, TimeoutError, ValueError, RecursionError):
            async with (
                asyncio.timeout(ASK_SECONDS),
                await self._client.request("GET", endpoint, "/props") as exchange,
            ):
                body = await exchange.whole()
                props = json.loads(body) if exchange.status == 200 else {}
        if granted := _read(props):
            while len(self._granted) >= ENDPOINTS_KEPT:
                del self._granted[next(iter(self._granted))]
            self._granted[endpoint] = granted
        return granted or Granted()


class Remembered(Generic[T]):
    """One measurement, shared by all who ask within a second."""

    def __init__(self, measure: Callable[[], T]) -> None:
        self._measure = measure
        self._measuring = asyncio.Lock()
        self._until = 0.0
        self._value: T | None = None

    @property
    def fresh(self) -> bool:
        return self._measuring.locked() or time.monotonic() < self._until

    async def get(self) -> T:
        async with self._measuring:
            if self._value is None or time.monotonic() >= self._until:
                self._value = await asyncio.to_thread(self._measure)
                self._until = time.monotonic() + FRESH_SECONDS
            return self._value


def _measure_machine() -> Machine:
    cpu = psutil.cpu_percent(CPU_SECONDS)
    used = psutil.virtual_memory().used
    return Machine(cpu, used, memory.available() or 0)


def _measure_tree(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(map(_resident_bytes, processes))


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _read(props: Any) -> Granted | None:
    """Read llama.cpp's properties, as far as they are what we know."""
    if not isinstance(props, dict) or not props:
        return None
    defaults = props.get("default_generation_settings")
    context = defaults.get("n_ctx") if isinstance(defaults, dict) else None
    return Granted(_count(props.get("total_slots")), _count(context))


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
