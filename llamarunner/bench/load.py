"""A load generator: chats at a fixed concurrency, and what was seen of them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp

PROMPT = "Tell me a story."
ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Target:
    """Where chats are sent."""

    url: str
    headers: dict[str, str]
    model: str


@dataclass(slots=True)
class Seen:
    """What one arm of a comparison showed; times in seconds."""

    first_byte: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    busy: float = 0.0  # sum of the rounds' durations

    def per_second(self, count: float) -> float:
        return count / self.busy if self.busy else 0.0

    def row(self) -> dict[str, float]:
        """Figures for the report: rates per second, times in milliseconds."""
        return {
            "requests_per_second": self.per_second(len(self.whole)),
            "tokens_per_second": self.per_second(self.tokens),
            "first_byte_p50_ms": quantile(self.first_byte, 50),
            "first_byte_p99_ms": quantile(self.first_byte, 99),
            "whole_p50_ms": quantile(self.whole, 50),
            "whole_p99_ms": quantile(self.whole, 99),
        }


@dataclass(frozen=True, slots=True)
class Scenario:
    """How many chats, how many at once, streamed or not, and how long."""

    name: str
    concurrency: int
    requests: int
    max_tokens: int
    stream: bool

    def body(self, model: str) -> dict[str, object]:
        return {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": self.stream,
            "stream_options": {"include_usage": True},
        }


def quantile(seconds: Iterable[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    values = sorted(seconds)
    if len(values) < 2:
        return sum(values) * 1000
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] * 1000


def session() -> aiohttp.ClientSession:
    """Open a session as ordinary clients do: connections are kept alive, for less long than llama.cpp keeps them."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
        timeout=aiohttp.ClientTimeout(total=600),
        trust_env=False,
    )


async def play(http: aiohttp.ClientSession, target: Target, scenario: Scenario, requests: int, seen: Seen) -> None:
    """Send some chats at the scenario's concurrency and add what was seen."""
    left = iter(range(requests))

    async def client() -> None:
        for _ in left:
            await _chat(http, target, scenario, seen)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(scenario.concurrency):
            group.create_task(client())
    seen.busy += time.perf_counter() - began


async def _chat(http: aiohttp.ClientSession, target: Target, scenario: Scenario, seen: Seen) -> None:
    """Send one chat; when a kept connection was just being closed it is sent again, and the wait counts.

    llama.cpp closes a connection after a hundred requests, so several kept ones may fail in a row.
    """
    began = time.perf_counter()
    for attempt in range(ATTEMPTS):
        try:
            first, whole = await _timed(http, target, scenario.body(target.model))
            break
        except aiohttp.ClientConnectionError:
            if attempt == ATTEMPTS - 1:
                raise
    seen.first_byte.append(first - began)
    seen.whole.append(whole - began)
    seen.tokens += scenario.max_tokens


async def _timed(http: aiohttp.ClientSession, target: Target, body: dict[str, object]) -> tuple[float, float]:
    """Return when the first byte and the last byte of an answer came. Raises RuntimeError on an error status."""
    async with http.post(f"{target.url}/v1/chat/completions", json=body, headers=target.headers) as response:
        if response.status != 200:
            raise RuntimeError(f"{target.url} answered {response.status}: {await response.text()}")
        await response.content.readany()
        first = time.perf_counter()
        async for _ in response.content.iter_any():
            pass
        return first, time.perf_counter()


async def first_token(http: aiohttp.ClientSession, target: Target) -> None:
    """Return once the first token of a short stream has come."""
    body = Scenario("first token", 1, 1, 1, stream=True).body(target.model)
    await _timed(http, target, body)
