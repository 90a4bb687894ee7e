"""Who runs: every decision of the fleet, without I/O and without a clock.

Facts go in as method calls (`ask`, `leave`, `started`, `ended`, `renew`, `let_go`, `give_up`, `stop`, `tick`,
`shut_down`), each with the time; effects come out as values for the supervisor to carry out, in order. Each fact is
handled whole before the next, so nothing is ever decided on a stale reading.

The rules:

* A *unit* is one instance that may run. It is in one `State`; `MOVES` lists every step it may take.
* A *ticket* is one caller. It waits in a unit's queue, or holds a lease; `leave` ends either.
* One start for each unit, however many tickets wait. When the load fails, all of them are refused, once.
* Room is a number of resident units and an amount of memory. To make room the idle unit that was used least
  recently is stopped. A unit with a lease is never stopped, unless by force.
* A unit that was started by hand is `kept`: idleness does not end it, and only others that are kept take its place.
  If `only_last_jit`, a unit that is not kept starts when no other such is left.
* Those that wait for room are served in the order they came, or refused after `queue_timeout` seconds. After
  `patience` seconds the least recently used busy unit takes no new callers, so that a steady stream to one model
  cannot starve another.
* A caller may *wish* for settings. While the process runs otherwise it is granted nothing: the process takes no more
  callers, ends when it has none, and the next one runs as the first in the queue wishes.
* A unit that fails waits 0.5 s, 1 s, 2 s … before its next start. After 5 failures within 120 s it is refused for
  60 s at a time, until it has lived for 120 s, which clears its record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from llamarunner.errors import LlamaRunnerError, ModelFailed, NotReady, QueueFull, ServiceUnavailable, ShuttingDown
from llamarunner.fleet.unit import (
    FAILURES_ALLOWED,
    NOTHING,
    RESIDENT,
    Death,
    Effect,
    Grant,
    Refuse,
    Rules,
    Spawn,
    State,
    Stop,
    Terms,
    Ticket,
    Unit,
)

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_LIMIT_SECONDS = 60.0
FAILURE_WINDOW_SECONDS = 120.0


class Schedule:
    """The state of all units and the rules by which it changes.

    `memory` tells the bytes that a new child could have now, or None where that is unknown or does not matter.
    `jitter` returns a factor around 1 that spreads the restarts of several servers.
    """

    def __init__(self, rules: Rules, memory: Callable[[], int | None], jitter: Callable[[], float]) -> None:
        self.rules = rules
        self.units: dict[str, Unit] = {}
        self.closing = False
        self._memory = memory
        self._jitter = jitter
        self._tickets: dict[Ticket, Unit] = {}
        self._effects: list[Effect] = []

    # ── facts ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, ticket: Ticket, name: str, terms: Terms, now: float, keep: bool | None = None) -> list[Effect]:
        """A caller wants to use a unit; it is granted, refused, or told later.

        With `keep` the unit stays loaded until it is stopped by hand; False takes that back, None leaves it as it is.
        One that had to leave is not kept when it comes back.
        """
        unit = self.units.setdefault(name, Unit(name, terms))
        unit.terms = terms
        unit.kept = unit.kept and (unit.state is not State.UNLOADED or bool(unit.waiting))
        if error := self._objection(unit, now):
            return [Refuse(ticket, name, error)]
        unit.kept = unit.kept if keep is None else keep
        self._tickets[ticket] = unit
        unit.waiting[ticket] = now
        if terms.wish:
            unit.wishes[ticket] = terms
        return self._settle(now)

    def leave(self, ticket: Ticket, now: float) -> list[Effect]:
        """A caller is done, or has gone before its turn; unknown tickets are fine."""
        unit = self._tickets.pop(ticket, None)
        if unit is None:
            return []
        unit.waiting.pop(ticket, None)
        unit.wishes.pop(ticket, None)
        if ticket in unit.leases:
            unit.leases.remove(ticket)
            unit.last_used = now
        return self._settle(now)

    def started(self, name: str, now: float, runs: Mapping[str, object] = NOTHING) -> list[Effect]:
        """A child is ready, and runs with these settings. One that was told to stop meanwhile goes on stopping."""
        unit = self.units[name]
        unit.runs = runs
        if unit.state is State.LOADING:
            unit.move(State.LOADED)
            unit.loaded_at = unit.last_used = now
            unit.load_seconds = now - unit.load_began
            unit.death, unit.spared = None, False
        return self._settle(now)

    def ended(self, name: str, death: Death | None, now: float) -> list[Effect]:
        """A child is gone and reaped; `death` unless it was stopped on purpose."""
        unit = self.units[name]
        unit.draining = None
        if unit.state is State.STOPPING or self._spare(unit, death):
            unit.move(State.UNLOADED)
        else:
            self._fail(unit, death or Death("the model's process ended"), now)
        return self._settle(now)

    def renew(self, name: str, now: float, in_any_case: bool = False) -> list[Effect]:
        """A unit is to run with other settings: its process ends once its callers are done.

        Those that wait, or ask from now on, get the next process. Nothing ends if `ask` would refuse those that ask,
        but in any case if so wanted.
        """
        if unit := self.units.get(name):
            self._forgive(unit)
            if in_any_case or not self._objection(unit, now):
                self._retire(unit, "asked")
        return self._settle(now)

    def let_go(self, name: str, now: float) -> list[Effect]:
        """A caller wants a unit unloaded as soon as it is idle; who waits, or comes until then, is still served."""
        if unit := self.units.get(name):
            unit.kept = False
            unit.terms = replace(unit.terms, ttl=0.0, pinned=False)
        return self.tick(now)

    def give_up(self, name: str, now: float) -> list[Effect]:
        """A child goes on with what its callers have left behind: stop it, unless it has callers again."""
        unit = self.units[name]
        if unit.idle:
            self._retire(unit, "cancelled")
        return self._settle(now)

    def stop(self, name: str, now: float, force: bool = False) -> list[Effect]:
        """The owner wants a unit unloaded: after its callers are done, or at once by force."""
        if unit := self.units.get(name):
            unit.kept = False
            self._refuse_all(unit, ServiceUnavailable(f"The model '{name}' was stopped before it was ready."))
            self._forgive(unit)
            self._retire(unit, "asked", force)
        return self._settle(now)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        for unit in self.units.values():
            if unit.expires is not None and unit.expires <= now:
                self._retire(unit, "idle")
            if unit.state is not State.LOADING:
                self._refuse_late(unit, now)
        return self._settle(now)

    def shut_down(self, now: float, force: bool = False) -> list[Effect]:
        """Take no new callers, let the present ones finish unless forced, and stop everything."""
        self.closing = True
        for unit in self.units.values():
            self._refuse_all(unit, ShuttingDown("The server is shutting down."))
            self._retire(unit, "shutdown", force)
        return self._settle(now)

    # ── readings ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def resident(self) -> list[Unit]:
        """The units that have a process."""
        return [unit for unit in self.units.values() if unit.state in RESIDENT]

    def next_tick(self, now: float) -> float | None:
        """When `tick` is due, if no other fact comes first."""
        times = [unit.expires for unit in self.units.values() if unit.expires is not None]
        for unit in self.units.values():
            if unit.waiting and unit.state is not State.LOADING:
                came = next(iter(unit.waiting.values()))
                soon = (unit.not_before, came + self.rules.patience, came + self.rules.queue_timeout)
                times += [moment for moment in soon if moment > now]
        return min(times, default=None)

    def overdue(self, now: float) -> float:
        """Seconds since which something should have happened; more than a moment means that `tick` is not called."""
        times = [unit.expires for unit in self.units.values() if unit.expires is not None]
        waiting = [unit for unit in self.units.values() if unit.waiting and unit.state is not State.LOADING]
        times += [next(iter(unit.waiting.values())) + self.rules.queue_timeout for unit in waiting]
        return max(0.0, now - min(times, default=now))

    # ── decisions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _objection(self, unit: Unit, now: float) -> LlamaRunnerError | None:
        if self.closing:
            return ShuttingDown("The server is shutting down.")
        if sum(len(other.waiting) for other in self.units.values()) >= self.rules.queue_length:
            return QueueFull("Too many requests are waiting for models. Try again later.", retry_after=5)
        if unit.state is State.ERROR and unit.tripped and now < unit.not_before and unit.death:
            wait = unit.not_before - now
            return ModelFailed(f"The model '{unit.name}' keeps failing: {unit.death.cause}.", retry_after=wait)
        return None

    def _settle(self, now: float) -> list[Effect]:
        """Grant what can be granted, end what has drained, start what has room; return all effects since the last."""
        for unit in self.units.values():
            if unit.state is State.LOADED and not unit.draining:
                self._grant(unit)
            elif unit.draining and not unit.leases and unit.state is State.LOADED:
                self._retire(unit, unit.draining)
        for unit in self._queue():
            if now >= unit.not_before and not self._start(unit, now):
                break
        effects, self._effects = self._effects, []
        return effects

    def _queue(self) -> list[Unit]:
        """Units that somebody waits for and that have no process, longest wait first."""
        waiting = [unit for unit in self.units.values() if unit.waiting and unit.state not in RESIDENT]
        return sorted(waiting, key=lambda unit: next(iter(unit.waiting.values())))

    def _start(self, unit: Unit, now: float) -> bool:
        """Start a unit or refuse its callers; False if it must wait for others to leave."""
        if wished := unit.wished:
            unit.terms = replace(unit.terms, bytes_needed=wished.bytes_needed)
        if not self._fits(unit) and not self._hopeless(unit):
            self._make_room(unit, now)
            return False
        if self._fits(unit):
            unit.move(State.LOADING)
            unit.load_began = now
            self._effects.append(Spawn(unit.name, wished.wish if wished else NOTHING))
        return True

    def _fits(self, unit: Unit) -> bool:
        if unit.spared and any(other.state is State.STOPPING for other in self.resident):
            return False
        if self.rules.only_last_jit and not unit.kept and any(other.may_go for other in self.resident):
            return False
        return len(self.resident) < self.rules.max_loaded and self._shortage(unit) <= 0

    def _shortage(self, unit: Unit) -> int:
        """Bytes that are missing; what loads at present has not taken its share yet."""
        free = self._memory()
        if free is None:
            return 0
        promised = sum(other.terms.bytes_needed for other in self.units.values() if other.state is State.LOADING)
        return unit.terms.bytes_needed + promised - free

    def _hopeless(self, unit: Unit) -> bool:
        """Refuse the callers of a unit that no departure would make room for."""
        if any(other.may_go or other.state is not State.LOADED or other.draining for other in self.resident):
            return False
        if len(self.resident) >= self.rules.max_loaded:
            error = ServiceUnavailable(
                "All places for models (supervisor.max_loaded_models) are taken by ones that are pinned or were loaded "
                "by hand. Unload one of them.",
                retry_after=None,  # waiting does not help
            )
        else:
            need, free = unit.terms.bytes_needed / 2**30, (self._memory() or 0) / 2**30
            error = ServiceUnavailable(
                f"Insufficient memory: the model '{unit.name}' needs about {need:.1f} GiB and {free:.1f} GiB are free. "
                "Try a smaller ctx_size or quantization.",
                retry_after=60,
            )
        self._refuse_all(unit, error)
        return True

    def _make_room(self, unit: Unit, now: float) -> None:
        """Send one unit away, unless one is leaving already."""
        if any(other.state is State.STOPPING or other.draining for other in self.resident):
            return
        movable = [u for u in self.resident if u.state is State.LOADED and u.may_go]
        by_use = sorted(movable, key=lambda u: u.last_used)
        if victim := next((u for u in by_use if u.idle), None):
            self._retire(victim, "evicted")
        elif by_use and now >= next(iter(unit.waiting.values())) + self.rules.patience:
            self._retire(by_use[0], "evicted")

    def _retire(self, unit: Unit, reason: str, force: bool = False) -> None:
        """Stop a unit, or let it drain first if it is busy."""
        if unit.state is State.LOADED and unit.leases and not force:
            unit.draining = reason
        elif unit.state in (State.LOADED, State.LOADING):
            unit.draining = None
            unit.move(State.STOPPING)
            self._effects.append(Stop(unit.name, reason))

    def _grant(self, unit: Unit) -> None:
        """Grant those that wait, in order, up to the first that wishes for another process."""
        while unit.waiting:
            ticket = next(iter(unit.waiting))
            if ticket in unit.wishes and not unit.wishes[ticket].suit(unit.runs):
                self._retire(unit, "asked")
                return
            del unit.waiting[ticket]
            unit.wishes.pop(ticket, None)
            unit.leases.add(ticket)
            self._effects.append(Grant(ticket, unit.name))

    def _refuse_late(self, unit: Unit, now: float) -> None:
        late = [ticket for ticket, came in unit.waiting.items() if came + self.rules.queue_timeout <= now]
        for ticket in late:
            del unit.waiting[ticket], self._tickets[ticket]
            unit.wishes.pop(ticket, None)
            error = NotReady(f"There was no room in time for the model '{unit.name}'.", retry_after=5)
            self._effects.append(Refuse(ticket, unit.name, error))

    def _refuse_all(self, unit: Unit, error: LlamaRunnerError) -> None:
        for ticket in unit.waiting:
            del self._tickets[ticket]
            self._effects.append(Refuse(ticket, unit.name, error))
        unit.waiting.clear()
        unit.wishes.clear()

    # ── failures ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _spare(self, unit: Unit, death: Death | None) -> bool:
        """Give a load that ran out of memory a second chance if idle units can make way."""
        if unit.state is not State.LOADING or unit.spared or not (death and death.out_of_memory):
            return False
        others = list(self._evictable())
        for other in others:
            self._retire(other, "evicted")
        unit.spared = bool(others)
        return unit.spared

    def _evictable(self) -> Iterator[Unit]:
        return (unit for unit in self.units.values() if unit.idle and unit.may_go)

    def _fail(self, unit: Unit, death: Death, now: float) -> None:
        if unit.state is State.LOADED and now - unit.loaded_at >= FAILURE_WINDOW_SECONDS:
            unit.failures.clear()
        unit.move(State.ERROR)
        unit.death, unit.spared = death, False
        while unit.failures and not unit.tripped and unit.failures[0] <= now - FAILURE_WINDOW_SECONDS:
            unit.failures.popleft()
        unit.failures.append(now)
        unit.not_before = now + self._backoff(len(unit.failures))
        wait = unit.not_before - now
        self._refuse_all(unit, ModelFailed(f"The model '{unit.name}' failed: {death.cause}.", retry_after=wait))

    def _forgive(self, unit: Unit) -> None:
        """Forget the failures of a unit, since its owner has changed something."""
        if unit.state is State.ERROR:
            unit.move(State.UNLOADED)
            unit.failures.clear()
            unit.not_before = 0.0

    def _backoff(self, failures: int) -> float:
        if failures >= FAILURES_ALLOWED:
            return BACKOFF_LIMIT_SECONDS
        return float(BACKOFF_FIRST_SECONDS * 2 ** (failures - 1) * self._jitter())
