"""What the schedule speaks of: units and their states, what callers want, and the effects that come out."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from llamarunner.errors import LlamaRunnerError

FAILURES_ALLOWED = 5  # before the loop breaker holds a unit back

Ticket = Hashable
NOTHING: Mapping[str, object] = MappingProxyType({})


class State(StrEnum):
    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    STOPPING = "stopping"
    ERROR = "error"


MOVES: dict[State, frozenset[State]] = {
    State.UNLOADED: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.LOADED, State.STOPPING, State.ERROR, State.UNLOADED}),
    State.LOADED: frozenset({State.STOPPING, State.ERROR}),
    State.STOPPING: frozenset({State.UNLOADED}),
    State.ERROR: frozenset({State.LOADING, State.UNLOADED}),
}
RESIDENT = frozenset({State.LOADING, State.LOADED, State.STOPPING})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner allows; seconds throughout."""

    max_loaded: int
    queue_length: int
    queue_timeout: float  # the longest wait for room; a load has limits of its own
    patience: float
    only_last_jit: bool = False  # of the units that were not started by hand, one at a time


@dataclass(frozen=True, slots=True)
class Terms:
    """What one unit needs and is owed, as its last caller has it.

    `wish` is how this caller wants the process to run, by the names of settings; what is not named may be any way.
    `bytes_needed` is for a process that runs so.
    """

    ttl: float | None  # seconds of idleness before it is stopped; None: never
    pinned: bool = False
    bytes_needed: int = 0
    wish: Mapping[str, object] = field(default_factory=dict)

    def suit(self, runs: Mapping[str, object]) -> bool:
        """Tell whether a process that runs so is what the caller wants."""
        return all(runs.get(name) == value for name, value in self.wish.items())


@dataclass(frozen=True, slots=True)
class Death:
    """Why a child ended that nobody had asked to; `cause` is fit for a client's eyes."""

    cause: str
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Spawn:
    unit: str
    wish: Mapping[str, object] = field(default_factory=dict)  # what its first callers want, over what was wished before


@dataclass(frozen=True, slots=True)
class Stop:
    unit: str
    reason: str  # asked, idle, evicted, cancelled, shutdown


@dataclass(frozen=True, slots=True)
class Grant:
    ticket: Ticket
    unit: str


@dataclass(frozen=True, slots=True)
class Refuse:
    ticket: Ticket
    unit: str
    error: LlamaRunnerError


Effect = Spawn | Stop | Grant | Refuse


@dataclass(slots=True)
class Unit:
    """One instance that may run; changed by `Schedule` alone, open for anyone to read."""

    name: str
    terms: Terms
    state: State = State.UNLOADED
    waiting: dict[Ticket, float] = field(default_factory=dict)  # ticket → when it came; first in, first out
    wishes: dict[Ticket, Terms] = field(default_factory=dict)  # of those that wait, if they have a wish
    runs: Mapping[str, object] = field(default_factory=dict)  # the settings of its process that can be wished otherwise
    leases: set[Ticket] = field(default_factory=set)
    kept: bool = False  # started by hand: stays until stopped by hand
    draining: str | None = None  # why it takes no new callers
    load_began: float = 0.0
    load_seconds: float | None = None  # how long the last load took that succeeded
    loaded_at: float = 0.0
    last_used: float = 0.0
    death: Death | None = None
    failures: deque[float] = field(default_factory=deque)
    not_before: float = 0.0  # earliest next start
    spared: bool = False  # a load that ran out of memory is tried again once

    def move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError(f"{self.name}: {self.state} → {state}")
        self.state = state

    @property
    def present(self) -> bool:
        """Whether it has a process, or will have one."""
        return self.state in RESIDENT or bool(self.waiting)

    @property
    def leaving(self) -> bool:
        """Whether it takes no more callers, and none waits for its next process."""
        return (self.state is State.STOPPING or bool(self.draining)) and not self.waiting

    @property
    def may_go(self) -> bool:
        """Whether it can be made to leave for a newcomer: none that its owner wants to stay."""
        return not self.terms.pinned and not self.kept

    @property
    def idle(self) -> bool:
        return self.state is State.LOADED and not self.leases and not self.waiting

    @property
    def expires(self) -> float | None:
        """When idleness ends it, were it left alone."""
        if not self.idle or not self.may_go or self.terms.ttl is None:
            return None
        return self.last_used + self.terms.ttl

    @property
    def wished(self) -> Terms | None:
        """The terms of the first of those that wait and wish something."""
        return next((terms for ticket in self.waiting if (terms := self.wishes.get(ticket))), None)

    @property
    def tripped(self) -> bool:
        """Whether the loop breaker holds it back."""
        return len(self.failures) >= FAILURES_ALLOWED
