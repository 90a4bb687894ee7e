"""Who may ask how often: budgets for each client, as values. The time is passed in, in nanoseconds of any steady clock.

    limiter = Limiter()
    with limiter.admit(Account("192.0.2.7", limits), now) as ticket:
        ticket.begin_stream()  # if it is one

A rate of N a minute means that in no 60 seconds more than N requests pass. Each client has 61 buckets of one second,
each of which counts in full until 60 seconds after its last request; so nobody waits longer than a minute, and whoever
asks at most N times in any 61 seconds is never refused. (Token buckets and weighted windows let up to twice the limit
pass.) A request counts when it is admitted, before its body is read; what is refused does not count. A stream counts
as a request that runs and as a stream.

Memory is bounded: a client whose buckets are empty is forgotten, and while there are too many others, new ones share
the budget of their network. To forget them instead would let them pass.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import ip_network
from typing import NamedTuple

from llamarunner.config import RateLimits
from llamarunner.errors import RateLimited

SECOND = 1_000_000_000  # nanoseconds
WINDOW = 60 * SECOND
MOST_CLIENTS = 50_000  # with a budget of their own, about 16 MB; as many networks may follow
SHARED_BITS = {4: 16, 6: 32}  # of an address, in a network that shares a budget
REST = "the rest"
TRY_AGAIN = 1.0  # seconds, where nobody knows when a request will end


class Account(NamedTuple):
    """Whose budget a request is counted in, and what that budget allows."""

    client: str
    limits: RateLimits


class Standing(NamedTuple):
    """What a client may still ask: within `reset` seconds, no more than `remaining`."""

    limit: int
    remaining: int
    reset: int

    def headers(self) -> Mapping[str, str]:
        """Say it as clients read it: the usual names, OpenAI's, and those of the IETF's draft 11.

        (draft-ietf-httpapi-ratelimit-headers-11; its `t` is the time within which no more than `r` will pass.)
        """
        limit, remaining, reset = str(self.limit), str(self.remaining), str(self.reset)
        return {
            "X-RateLimit-Limit": limit,
            "X-RateLimit-Remaining": remaining,
            "X-RateLimit-Reset": reset,
            "X-RateLimit-Limit-Requests": limit,
            "X-RateLimit-Remaining-Requests": remaining,
            "X-RateLimit-Reset-Requests": f"{reset}s",
            "RateLimit-Policy": f'"requests";q={limit};w=60',
            "RateLimit": f'"requests";r={remaining};t={reset}',
        }


class Usage:
    """What one client has used: its requests of the last minute, and those that run."""

    __slots__ = ("_buckets", "_count", "running", "streams")

    def __init__(self) -> None:
        self._buckets = array("q")  # for each second with a request: when the last one came, and how many they were
        self._count = 0
        self.running = 0
        self.streams = 0

    def requests(self, now: int) -> int:
        """How many requests count now."""
        buckets, gone = self._buckets, now - WINDOW
        while buckets and buckets[0] <= gone:
            self._count -= buckets[1]
            del buckets[:2]
        return self._count

    def add(self, now: int) -> None:
        """Count a request."""
        buckets = self._buckets
        if buckets and buckets[-2] // SECOND == now // SECOND:
            buckets[-2] = now
            buckets[-1] += 1
        else:
            buckets.extend((now, 1))
        self._count += 1

    def wait(self, fewer_than: int, now: int) -> int:
        """Seconds, rounded up, until some requests count no more, and fewer than so many do, if no more come."""
        left = self._count
        for index in range(0, len(self._buckets), 2):
            left -= self._buckets[index + 1]
            if left < fewer_than:
                return -(-(self._buckets[index] + WINDOW - now) // SECOND)
        return 0


class Ticket:
    """An admitted request, until it is released; releasing it twice is releasing it once."""

    __slots__ = ("_held", "_limits", "_streams", "_usage")

    def __init__(self, usage: Usage, limits: RateLimits) -> None:
        self._usage = usage
        self._limits = limits
        self._held = True
        self._streams = False
        usage.running += 1

    def begin_stream(self) -> None:
        """Count the request as a stream too, from now until its release. Raises RateLimited."""
        if self._streams or not self._held:
            return
        most = self._limits.streaming_connections
        if most is not None and self._usage.streams >= most:
            message = f"Too many streams at the same time; the limit is {most}."
            raise RateLimited(message, retry_after=TRY_AGAIN, limit="streaming_connections")
        self._streams = True
        self._usage.streams += 1

    def release(self) -> None:
        if self._held:
            self._held = False
            self._usage.running -= 1
            self._usage.streams -= self._streams

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Limiter:
    """The budgets of all clients of one door. It knows no limits but those of each account, which may change."""

    def __init__(self, most_clients: int = MOST_CLIENTS) -> None:
        self._most = most_clients
        self._clients: OrderedDict[str, Usage] = OrderedDict()
        self._crowds: OrderedDict[str, Usage] = OrderedDict()  # networks whose newcomers share a budget

    def __len__(self) -> int:
        return len(self._clients) + len(self._crowds)

    def check(self, account: Account, now: int, of_minute: bool = True) -> Usage:
        """Find what the client has used, if it may ask now. Raises RateLimited."""
        client, limits = account
        _forget_idle(self._clients, now)
        _forget_idle(self._crowds, now)
        usage = self._known(client) or self._welcome(client)
        most = limits.requests_per_minute
        if of_minute and most is not None and usage.requests(now) >= most:
            seconds = usage.wait(most, now)
            message = f"Rate limit exceeded. Try again in {seconds} seconds."
            raise RateLimited(message, retry_after=seconds, limit="requests_per_minute")
        most = limits.concurrent_requests
        if most is not None and usage.running >= most:
            message = f"Too many requests at the same time; the limit is {most}."
            raise RateLimited(message, retry_after=TRY_AGAIN, limit="concurrent_requests")
        return usage

    def admit(self, account: Account, now: int, of_minute: bool = True) -> Ticket:
        """Count a request that begins; what is not one of the minute, among those that run alone.

        Raises RateLimited, and then counts nothing.
        """
        usage = self.check(account, now, of_minute)
        if of_minute:
            usage.add(now)
        return Ticket(usage, account.limits)

    def standing(self, account: Account, now: int) -> Standing | None:
        """What a client may still ask; None if its rate has no limit."""
        client, limits = account
        limit = limits.requests_per_minute
        if limit is None:
            return None
        usage = self._known(client)
        count = usage.requests(now) if usage else 0
        if not usage or not count:
            return Standing(limit, limit, WINDOW // SECOND)
        return Standing(limit, max(0, limit - count), usage.wait(limit, now))

    def _known(self, client: str) -> Usage | None:
        usage = self._clients.get(client)
        if usage is None and self._crowds:  # it may have come when there was no room
            usage = self._crowds.get(network_of(client)) or self._crowds.get(REST)
        return usage

    def _welcome(self, client: str) -> Usage:
        usage = Usage()
        if len(self._clients) < self._most:
            self._clients[client] = usage
        elif len(self._crowds) < self._most:
            self._crowds[network_of(client)] = usage
        else:
            self._crowds[REST] = usage
        return usage


class Bucket:
    """So many messages a second, and some more at once: for what is cheap, and comes through one connection."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: int, burst: int, now: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = now

    def take(self, now: int) -> bool:
        """Count a message; False if it is too much."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate / SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def charge(self, cost: float) -> float:
        """Count more for the message that was just taken; seconds until the next one can be."""
        self._left -= cost
        return max(0.0, (2 - self._left) / self._rate)


def network_of(client: str) -> str:
    """The network with which an address shares a budget when there is no room; what is no address stays alone."""
    try:
        network = ip_network(client)
    except ValueError:
        return client
    return str(network.supernet(new_prefix=SHARED_BITS[network.version]))


def _forget_idle(usages: OrderedDict[str, Usage], now: int) -> None:
    """Look at two of them, in turn; so each request cleans up more than it can add."""
    for _ in range(min(2, len(usages))):
        client, usage = next(iter(usages.items()))
        if usage.running or usage.requests(now):
            usages.move_to_end(client)
        else:
            del usages[client]
