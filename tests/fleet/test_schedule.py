"""The schedule's rules, one by one with values, then all together under random facts in virtual time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llamarunner.errors import ModelFailed, QueueFull, ServiceUnavailable, ShuttingDown
from llamarunner.fleet.schedule import Schedule
from llamarunner.fleet.unit import (
    FAILURES_ALLOWED,
    MOVES,
    RESIDENT,
    Death,
    Grant,
    Refuse,
    Rules,
    Spawn,
    State,
    Stop,
    Terms,
    Unit,
)

HOUR = Terms(ttl=3600.0)


def schedule(max_loaded: int = 2, queue: int = 512, patience: float = 10.0, memory: int | None = None) -> Schedule:
    return Schedule(Rules(max_loaded, queue, 600.0, patience), lambda: memory, lambda: 1.0)


def load(fleet: Schedule, name: str, now: float = 0.0, terms: Terms = HOUR) -> None:
    """Start a unit and give its lease back."""
    assert fleet.ask((name, now), name, terms, now) == [Spawn(name)]
    assert fleet.started(name, now) == [Grant((name, now), name)]
    assert fleet.leave((name, now), now) == []


def wishing(wish: dict[str, object]) -> Terms:
    return Terms(HOUR.ttl, wish=wish)


def refusal(effects: list[object]) -> Refuse:
    (effect,) = effects
    assert isinstance(effect, Refuse)
    return effect


def test_first_caller_starts_the_unit_and_all_who_wait_are_granted_in_order() -> None:
    fleet = schedule()
    assert fleet.ask(1, "a", HOUR, 0) == [Spawn("a")]
    assert fleet.ask(2, "a", HOUR, 1) == []
    assert fleet.started("a", 2) == [Grant(1, "a"), Grant(2, "a")]
    assert fleet.ask(3, "a", HOUR, 3) == [Grant(3, "a")]


def test_caller_that_leaves_does_not_stop_the_load() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0)
    assert fleet.leave(1, 1) == []
    assert fleet.started("a", 2) == []
    assert fleet.units["a"].state is State.LOADED


def test_failed_load_refuses_all_callers_once_with_the_cause() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0)
    fleet.ask(2, "a", HOUR, 0)
    effects = fleet.ended("a", Death("its file is truncated"), 1)
    assert [type(effect) for effect in effects] == [Refuse, Refuse]
    assert isinstance(effects[0], Refuse)
    assert isinstance(effects[0].error, ModelFailed)
    assert "its file is truncated" in effects[0].error.message
    assert fleet.units["a"].state is State.ERROR


def test_next_request_after_a_failure_starts_again_after_the_backoff() -> None:
    fleet = schedule()
    load(fleet, "a")
    assert fleet.ended("a", Death("signal 9"), 5) == []
    assert fleet.ask(1, "a", HOUR, 5.1) == []
    assert fleet.next_tick(5.1) == 5.5
    assert fleet.tick(5.5) == [Spawn("a")]


def test_loop_breaker_refuses_after_five_failures_and_lets_one_try_through_a_minute_later() -> None:
    fleet = schedule()
    now = 0.0
    for attempt in range(FAILURES_ALLOWED):
        fleet.ask(attempt, "a", HOUR, now)
        now = max(now, fleet.next_tick(now) or now)
        fleet.tick(now)
        refused = fleet.ended("a", Death("exit code 1"), now)
        assert isinstance(refusal(refused).error, ModelFailed)
    held_back = refusal(fleet.ask("x", "a", HOUR, now + 1)).error
    assert held_back.retry_after == pytest.approx(59)
    assert fleet.ask("y", "a", HOUR, now + 60) == [Spawn("a")]


def test_starts_in_ten_minutes_of_constant_failure_stay_below_sixteen() -> None:
    fleet, starts, now = schedule(), 0, 0.0
    while now < 600:
        effects = fleet.ask(object(), "a", HOUR, now) + fleet.tick(now)
        if Spawn("a") in effects:
            starts += 1
            fleet.ended("a", Death("exit code 1"), now)
        now += 0.1
    assert FAILURES_ALLOWED <= starts <= 15


def test_health_clears_the_record_of_failures() -> None:
    fleet = schedule()
    for number in range(FAILURES_ALLOWED + 1):
        now = number * 200.0
        load(fleet, "a", now)
        fleet.ended("a", Death("signal 9"), now + 130)
    assert len(fleet.units["a"].failures) == 1


def test_idle_unit_is_stopped_after_its_ttl_counted_from_the_end_of_use() -> None:
    fleet = schedule()
    fleet.ask(1, "a", Terms(ttl=60), 0)
    fleet.started("a", 0)
    assert fleet.next_tick(50) is None
    fleet.leave(1, 100)
    assert fleet.next_tick(100) == 160
    assert fleet.tick(159) == []
    assert fleet.tick(160) == [Stop("a", "idle")]


@pytest.mark.parametrize("terms", [Terms(ttl=None), Terms(ttl=60, pinned=True)])
def test_units_without_ttl_and_pinned_units_stay(terms: Terms) -> None:
    fleet = schedule()
    load(fleet, "a", 0, terms)
    assert fleet.next_tick(0) is None
    assert fleet.tick(1e6) == []


def test_unit_started_by_hand_stays_until_stopped_by_hand() -> None:
    fleet = schedule()
    fleet.ask(1, "a", Terms(ttl=60), 0, keep=True)
    fleet.started("a", 0)
    fleet.leave(1, 0)
    assert fleet.tick(1e6) == []
    assert fleet.stop("a", 1e6) == [Stop("a", "asked")]


def test_least_recently_used_idle_unit_makes_room() -> None:
    fleet = schedule(max_loaded=2)
    load(fleet, "a", 0)
    load(fleet, "b", 1)
    assert fleet.ask(1, "a", HOUR, 2) == [Grant(1, "a")]
    assert fleet.leave(1, 3) == []
    assert fleet.ask(2, "c", HOUR, 4) == [Stop("b", "evicted")]
    assert fleet.ended("b", None, 5) == [Spawn("c")]


def test_busy_unit_is_not_evicted_but_takes_no_new_callers_once_patience_ends() -> None:
    fleet = schedule(max_loaded=1, patience=10)
    fleet.ask(1, "a", HOUR, 0)
    fleet.started("a", 0)
    assert fleet.ask(2, "b", HOUR, 1) == []
    assert fleet.ask(3, "a", HOUR, 2) == [Grant(3, "a")]
    assert fleet.next_tick(2) == 11
    assert fleet.tick(11) == []
    assert fleet.ask(4, "a", HOUR, 12) == []
    assert fleet.leave(1, 13) == []
    assert fleet.leave(3, 14) == [Stop("a", "evicted")]
    assert fleet.ended("a", None, 15) == [Spawn("b")]


def test_wait_for_room_is_bounded_but_a_load_may_take_longer() -> None:
    fleet = schedule(max_loaded=1)
    fleet.ask(1, "a", HOUR, 0)
    assert fleet.tick(5000) == []
    fleet.started("a", 5000)
    fleet.ask(2, "b", HOUR, 5001)
    fleet.tick(5011)
    assert fleet.next_tick(5011) == 5601
    assert "no room in time" in refusal(fleet.tick(5601)).error.message


def test_pinned_units_that_fill_the_places_refuse_others_at_once() -> None:
    fleet = schedule(max_loaded=1)
    load(fleet, "a", 0, Terms(ttl=None, pinned=True))
    assert isinstance(refusal(fleet.ask(1, "b", HOUR, 1)).error, ServiceUnavailable)


def test_memory_is_made_by_eviction_and_a_model_that_never_fits_is_refused() -> None:
    free = [10]
    fleet = Schedule(Rules(5, 10, 600.0, 10.0), lambda: free[0], lambda: 1.0)
    load(fleet, "a", 0, Terms(None, bytes_needed=8))
    free[0] = 2
    assert fleet.ask(1, "b", Terms(None, bytes_needed=6), 1) == [Stop("a", "evicted")]
    free[0] = 10
    assert fleet.ended("a", None, 2) == [Spawn("b")]
    never = refusal(schedule(memory=5).ask(2, "c", Terms(None, bytes_needed=6), 3)).error
    assert "Insufficient memory" in never.message


def test_models_that_load_together_share_the_memory_that_is_free() -> None:
    fleet = schedule(memory=10)
    assert fleet.ask(1, "a", Terms(None, bytes_needed=6), 0) == [Spawn("a")]
    assert fleet.ask(2, "b", Terms(None, bytes_needed=6), 0) == []


def test_load_that_runs_out_of_memory_is_tried_once_more_after_idle_units_left() -> None:
    fleet = schedule(max_loaded=3)
    load(fleet, "a", 0)
    fleet.ask(1, "b", HOUR, 1)
    assert fleet.ended("b", Death("signal 9", out_of_memory=True), 2) == [Stop("a", "evicted")]
    assert fleet.ended("a", None, 3) == [Spawn("b")]
    assert isinstance(refusal(fleet.ended("b", Death("signal 9", out_of_memory=True), 4)).error, ModelFailed)


def test_stop_waits_for_callers_unless_forced() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0)
    fleet.started("a", 0)
    assert fleet.stop("a", 1) == []
    assert fleet.ask(2, "a", HOUR, 2) == []
    assert fleet.leave(1, 3) == [Stop("a", "asked")]
    assert fleet.ended("a", None, 4) == [Spawn("a")]
    fleet.started("a", 5)
    assert fleet.stop("a", 6, force=True) == [Stop("a", "asked")]


def test_request_during_an_idle_unload_is_served_by_a_new_start() -> None:
    fleet = schedule()
    load(fleet, "a", 0, Terms(ttl=60))
    assert fleet.tick(60) == [Stop("a", "idle")]
    assert fleet.ask(1, "a", HOUR, 60) == []
    assert fleet.ended("a", None, 61) == [Spawn("a")]


def test_stop_during_a_load_refuses_the_callers_and_ends_it() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0)
    effects = fleet.stop("a", 1)
    assert [type(effect) for effect in effects] == [Refuse, Stop]
    assert fleet.started("a", 2) == []
    assert fleet.ended("a", None, 3) == []
    assert fleet.units["a"].state is State.UNLOADED


def test_queue_is_bounded() -> None:
    fleet = schedule(queue=2)
    fleet.ask(1, "a", HOUR, 0)
    fleet.ask(2, "a", HOUR, 0)
    assert isinstance(refusal(fleet.ask(3, "a", HOUR, 0)).error, QueueFull)


def test_shutdown_refuses_newcomers_and_those_who_wait_and_lets_the_busy_finish() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0)
    fleet.started("a", 0)
    fleet.ask(2, "b", HOUR, 0)
    refused, stopped = fleet.shut_down(1)
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, ShuttingDown)
    assert stopped == Stop("b", "shutdown")
    assert isinstance(refusal(fleet.ask(3, "a", HOUR, 2)).error, ShuttingDown)
    assert fleet.leave(1, 3) == [Stop("a", "shutdown")]


def test_renewed_unit_ends_after_its_callers_and_the_next_process_is_for_those_who_wait() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0, keep=True)
    fleet.started("a", 0)
    assert fleet.renew("a", 1) == []
    assert fleet.ask(2, "a", HOUR, 2) == []
    assert fleet.leave(1, 3) == [Stop("a", "asked")]
    assert fleet.ended("a", None, 4) == [Spawn("a")]
    assert fleet.started("a", 5) == [Grant(2, "a")]
    assert fleet.units["a"].kept


def test_renewed_unit_that_still_loads_refuses_nobody() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0)
    assert fleet.renew("a", 1) == [Stop("a", "asked")]
    assert fleet.ended("a", None, 2) == [Spawn("a")]


def test_renewing_forgives_failures_and_ends_nothing_that_could_not_start_again() -> None:
    fleet = schedule(queue=1)
    fleet.ask(1, "a", HOUR, 0)
    fleet.ended("a", Death("exit code 1"), 0)
    assert fleet.renew("a", 0) == []
    load(fleet, "a")
    assert fleet.ask("waits", "b", HOUR, 0) == [Spawn("b")]
    assert fleet.renew("a", 1) == [], "the queue is full"
    assert fleet.units["a"].state is State.LOADED
    assert fleet.renew("unknown", 1) == []
    assert fleet.renew("a", 1, in_any_case=True) == [Stop("a", "asked")]


def test_start_by_hand_is_taken_back_by_one_that_says_so_and_by_no_other() -> None:
    fleet = schedule()
    fleet.ask(1, "a", Terms(ttl=60), 0, keep=True)
    fleet.started("a", 0)
    fleet.ask(2, "a", Terms(ttl=60), 1)
    fleet.leave(1, 2)
    fleet.leave(2, 2)
    assert fleet.units["a"].expires is None
    fleet.ask(3, "a", Terms(ttl=60), 3, keep=False)
    fleet.leave(3, 3)
    assert fleet.units["a"].expires == 63


def test_a_wish_that_does_not_suit_waits_for_the_others_and_then_for_a_process_of_its_own() -> None:
    fleet = schedule()
    load(fleet, "a")
    assert fleet.ask(1, "a", HOUR, 1) == [Grant(1, "a")]
    assert fleet.ask(2, "a", wishing({"size": 2}), 2) == []
    assert fleet.ask(3, "a", HOUR, 3) == [], "nobody overtakes"
    assert fleet.leave(1, 4) == [Stop("a", "asked")]
    assert fleet.ended("a", None, 5) == [Spawn("a", {"size": 2})]
    assert fleet.started("a", 6, {"size": 2, "more": 0}) == [Grant(2, "a"), Grant(3, "a")]
    assert fleet.ask(4, "a", wishing({"size": 2}), 7) == [Grant(4, "a")]


def test_those_whose_wishes_contradict_each_other_are_served_in_turn() -> None:
    fleet = schedule()
    assert fleet.ask(1, "a", wishing({"size": 1}), 0) == [Spawn("a", {"size": 1})]
    assert fleet.ask(2, "a", wishing({"size": 2}), 0) == []
    assert fleet.ask(3, "a", HOUR, 0) == []
    assert fleet.started("a", 1, {"size": 1}) == [Grant(1, "a")]
    assert fleet.leave(1, 2) == [Stop("a", "asked")]
    assert fleet.ended("a", None, 3) == [Spawn("a", {"size": 2})]
    assert fleet.started("a", 4, {"size": 2}) == [Grant(2, "a"), Grant(3, "a")]


def test_the_memory_that_a_wish_needs_is_what_counts() -> None:
    fleet = schedule(memory=10)
    refused = refusal(fleet.ask(1, "a", Terms(HOUR.ttl, bytes_needed=11, wish={"size": 9}), 0))  # type: ignore[arg-type]
    assert "Insufficient memory" in refused.error.message
    assert fleet.ask(2, "a", Terms(HOUR.ttl, bytes_needed=5, wish={"size": 1}), 0) == [Spawn("a", {"size": 1})]


def test_what_is_let_go_stops_when_it_is_idle_even_if_it_was_started_by_hand() -> None:
    fleet = schedule()
    load(fleet, "a", terms=Terms(ttl=None, pinned=True))
    fleet.ask(1, "a", Terms(ttl=None, pinned=True), 1, keep=True)
    assert fleet.let_go("a", 2) == []
    assert fleet.leave(1, 3) == []
    assert fleet.next_tick(3) == 3
    assert fleet.tick(3) == [Stop("a", "idle")]
    assert fleet.let_go("unknown", 4) == []


def test_what_its_callers_left_behind_is_stopped_without_blame_unless_there_are_callers_again() -> None:
    fleet = schedule()
    fleet.ask(1, "a", HOUR, 0, keep=True)
    fleet.started("a", 0)
    assert fleet.give_up("a", 1) == [], "there is a caller"
    assert fleet.leave(1, 2) == []
    assert fleet.give_up("a", 3) == [Stop("a", "cancelled")]
    assert fleet.give_up("a", 3) == [], "it stops already"
    assert fleet.ask(2, "a", HOUR, 4) == []
    assert fleet.ended("a", None, 5) == [Spawn("a")]
    assert fleet.started("a", 6) == [Grant(2, "a")]
    assert fleet.units["a"].kept


def test_schedule_that_is_not_ticked_is_overdue() -> None:
    fleet = schedule(max_loaded=1)
    load(fleet, "a", terms=Terms(ttl=60))
    assert fleet.overdue(60) == 0
    assert fleet.overdue(70) == 10
    fleet.ask(1, "a", HOUR, 80)
    fleet.ask(2, "b", HOUR, 80)
    assert fleet.overdue(679) == 0
    assert fleet.overdue(690) == 10
    fleet.tick(690)
    assert fleet.overdue(690) == 0


def test_illegal_moves_raise() -> None:
    unit = Unit("a", HOUR)
    with pytest.raises(AssertionError, match="unloaded → loaded"):
        unit.move(State.LOADED)
    assert set(MOVES) == set(State)


def started_by_hand(fleet: Schedule, name: str, now: float = 0.0) -> None:
    fleet.ask((name, now), name, HOUR, now, keep=True)
    fleet.started(name, now)
    fleet.leave((name, now), now)


def test_what_was_started_by_hand_makes_way_for_nothing_that_only_a_request_wants() -> None:
    fleet = schedule(max_loaded=2)
    started_by_hand(fleet, "a", 0)
    load(fleet, "b", 1)
    assert fleet.ask(1, "c", HOUR, 2) == [Stop("b", "evicted")], "not a, though it was used before b"
    assert fleet.ended("b", None, 3) == [Spawn("c")]
    fleet.started("c", 4)
    started = fleet.ask(2, "c", HOUR, 5, keep=True)
    assert started == [Grant(2, "c")]
    assert "loaded by hand" in refusal(fleet.ask(3, "b", HOUR, 6)).error.message


def test_what_was_started_by_hand_makes_way_for_no_other_such() -> None:
    fleet = schedule(max_loaded=2)
    started_by_hand(fleet, "a", 0)
    load(fleet, "b", 1)
    assert fleet.ask(1, "c", HOUR, 2, keep=True) == [Stop("b", "evicted")], "though a was used before b"
    assert fleet.ended("b", None, 3) == [Spawn("c")]
    fleet.started("c", 4)
    fleet.leave(1, 5)
    error = refusal(fleet.ask(2, "b", HOUR, 6, keep=True)).error
    assert "supervisor.max_loaded_models" in error.message
    assert error.retry_after is None, "waiting does not help"
    assert {unit.name for unit in fleet.resident} == {"a", "c"}


def test_what_was_started_by_hand_and_stopped_is_not_kept_when_a_request_brings_it_back() -> None:
    fleet = schedule(max_loaded=1)
    started_by_hand(fleet, "a")
    assert fleet.stop("a", 1) == [Stop("a", "asked")]
    fleet.ended("a", None, 2)
    load(fleet, "a", 5)
    assert fleet.units["a"].expires == 3605


def test_load_that_runs_out_of_memory_spares_what_was_started_by_hand() -> None:
    fleet = schedule(max_loaded=3)
    started_by_hand(fleet, "a")
    fleet.ask(1, "b", HOUR, 1)
    refused = refusal(fleet.ended("b", Death("out of memory", out_of_memory=True), 2))
    assert isinstance(refused.error, ModelFailed)


def test_if_so_ruled_only_the_last_unit_that_a_request_has_loaded_stays() -> None:
    fleet = schedule(max_loaded=3)
    load(fleet, "a")
    load(fleet, "b")
    fleet.rules = Rules(3, 512, 600.0, 10.0, only_last_jit=True)
    started_by_hand(fleet, "kept", 1)
    assert fleet.ask(1, "a", HOUR, 1) == [Grant(1, "a")]
    assert fleet.ask(2, "c", HOUR, 2) == [Stop("b", "evicted")]
    assert fleet.ended("b", None, 3) == [], "a is busy"
    assert fleet.leave(1, 4) == [Stop("a", "evicted")]
    assert fleet.ended("a", None, 5) == [Spawn("c")]
    assert {unit.name for unit in fleet.resident} == {"c", "kept"}


NAMES = st.sampled_from(["a", "b", "c", "d"])


class Fleet(RuleBasedStateMachine):
    """Random facts in virtual time; a model of the world checks what the schedule does to it."""

    @initialize(max_loaded=st.integers(1, 3), memory=st.one_of(st.none(), st.integers(4, 12)), last_jit=st.booleans())
    def open(self, max_loaded: int, memory: int | None, last_jit: bool) -> None:
        self.total = memory
        self.now = 0.0
        self.next_ticket = 0
        self.children: dict[str, str] = {}  # name → loading, ready or stopping
        self.waiting: dict[int, str] = {}
        self.leased: dict[int, str] = {}
        self.wishes: dict[int, int] = {}
        self.runs: dict[str, dict[str, object]] = {}
        self.forced = self.closed = False
        self.fleet = Schedule(Rules(max_loaded, 20, 60.0, 5.0, last_jit), self.free, lambda: 1.0)

    def free(self) -> int | None:
        if self.total is None:
            return None
        taken = sum(1 + ord(name) - ord("a") for name, phase in self.children.items() if phase != "loading")
        return self.total - taken

    def carry_out(self, effects: list[object]) -> None:
        for effect in effects:
            match effect:
                case Spawn(name, wish):
                    assert name not in self.children, "two children for one unit"
                    assert not self.closed
                    units = self.fleet.units
                    rivals = [one for one in self.children if one != name and units[one].may_go]
                    alone = units[name].kept or not self.fleet.rules.only_last_jit
                    assert alone or not rivals, "beside another that a request has loaded"
                    self.children[name] = "loading"
                    self.runs[name] = {**self.runs.get(name, {"size": 0}), **wish}
                case Stop(name, reason):
                    unit = self.fleet.units[name]
                    assert unit.may_go or reason not in ("evicted", "idle"), "what its owner wants to stay"
                    assert self.children[name] in ("loading", "ready"), "stopped twice, or never started"
                    busy = name in self.leased.values() and self.children[name] == "ready"
                    assert self.forced or not busy, "stopped while busy"
                    self.children[name] = "stopping"
                case Grant(ticket, name):
                    assert self.children[name] == "ready", "granted before it was ready"
                    assert self.waiting.pop(ticket) == name
                    wish = self.wishes.get(ticket)
                    assert wish is None or self.runs[name]["size"] == wish, "granted what runs otherwise"
                    self.leased[ticket] = name
                case Refuse(ticket, _, _):
                    self.waiting.pop(ticket)

    @rule(
        name=NAMES,
        keep=st.sampled_from([None, True, False]),
        ttl=st.one_of(st.none(), st.floats(0.1, 20)),
        pinned=st.booleans(),
        size=st.sampled_from([None, None, 0, 1, 2]),
    )
    def ask(self, name: str, keep: bool | None, ttl: float | None, pinned: bool, size: int | None) -> None:
        self.next_ticket += 1
        self.waiting[self.next_ticket] = name
        if size is not None:
            self.wishes[self.next_ticket] = size
        wish = {} if size is None else {"size": size}
        terms = Terms(ttl, pinned and name == "a", 1 + ord(name) - ord("a"), wish)
        self.carry_out(self.fleet.ask(self.next_ticket, name, terms, self.now, keep))

    @precondition(lambda self: self.waiting or self.leased)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted([*self.waiting, *self.leased])))
        self.waiting.pop(ticket, None)
        self.leased.pop(ticket, None)
        self.carry_out(self.fleet.leave(ticket, self.now))

    @precondition(lambda self: "loading" in self.children.values())
    @rule(data=st.data())
    def child_is_ready(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(n for n, phase in self.children.items() if phase == "loading")))
        self.children[name] = "ready"
        self.carry_out(self.fleet.started(name, self.now, self.runs[name]))

    @precondition(lambda self: self.children)
    @rule(data=st.data(), out_of_memory=st.booleans())
    def child_ends(self, data: st.DataObject, out_of_memory: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.children)))
        crashed = self.children.pop(name) != "stopping"
        self.forced = self.forced and any(phase == "ready" for phase in self.children.values())
        self.carry_out(self.fleet.ended(name, Death("crash", out_of_memory) if crashed else None, self.now))

    @rule(name=NAMES, force=st.booleans())
    def stop(self, name: str, force: bool) -> None:
        self.forced = force
        self.carry_out(self.fleet.stop(name, self.now, force))
        self.forced = self.closed

    @rule(name=NAMES, in_any_case=st.booleans())
    def renew(self, name: str, in_any_case: bool) -> None:
        waiting = dict(self.waiting)
        self.carry_out(self.fleet.renew(name, self.now, in_any_case))
        unit, others = self.fleet.units.get(name), self.fleet.resident
        no_room = unit is not None and not any(other.may_go for other in others)
        assert no_room or waiting.keys() - self.waiting.keys() == set(), "renewing turns nobody away"

    @rule(name=NAMES)
    def let_go(self, name: str) -> None:
        self.carry_out(self.fleet.let_go(name, self.now))
        unit = self.fleet.units.get(name)
        assert unit is None or not unit.idle, "what is let go and idle stops at once"

    @precondition(lambda self: self.children)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiting = dict(self.waiting)
        self.carry_out(self.fleet.give_up(data.draw(st.sampled_from(sorted(self.children))), self.now))
        assert waiting.keys() - self.waiting.keys() == set(), "giving up turns nobody away"

    @rule(seconds=st.floats(0.01, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.fleet.tick(self.now))
        assert self.fleet.overdue(self.now) == 0

    @rule(force=st.booleans())
    @precondition(lambda self: self.next_ticket > 15)
    def shut_down(self, force: bool) -> None:
        self.closed, self.forced = True, force
        self.carry_out(self.fleet.shut_down(self.now, force))
        self.forced = False

    @invariant()
    def schedule_and_world_agree(self) -> None:
        if not hasattr(self, "fleet"):
            return
        units = self.fleet.units
        phases = {"loading": State.LOADING, "ready": State.LOADED, "stopping": State.STOPPING}
        for name, phase in self.children.items():
            assert units[name].state is phases[phase]
        assert {u.name for u in units.values() if u.state in RESIDENT} == set(self.children)
        assert len(self.children) <= self.fleet.rules.max_loaded
        assert Counter(self.waiting.values()) == Counter({u.name: len(u.waiting) for u in units.values() if u.waiting})
        assert {t for u in units.values() for t in u.leases} == set(self.leased)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Whoever waits, waits for a child, for a moment in the future, for a busy unit, or for memory."""
        if not hasattr(self, "fleet") or not self.waiting:
            return
        moving = any(phase != "ready" for phase in self.children.values())
        assert moving or self.leased or self.fleet.next_tick(self.now) is not None

    def teardown(self) -> None:
        """Let the world run on in good order: every caller is answered in bounded time, and shutdown leaves nothing."""
        if not hasattr(self, "fleet"):
            return
        for _ in range(200):
            if not self.waiting:
                break
            self.run_a_while()
        assert not self.waiting, "a caller was never answered"
        self.closed = self.forced = True
        self.carry_out(self.fleet.shut_down(self.now, force=True))
        for name in list(self.children):
            del self.children[name]
            self.carry_out(self.fleet.ended(name, None, self.now))
        assert not self.children

    def run_a_while(self) -> None:
        for ticket in list(self.leased):
            del self.leased[ticket]
            self.carry_out(self.fleet.leave(ticket, self.now))
        for name, phase in list(self.children.items()):
            if phase == "loading":
                self.children[name] = "ready"
                self.carry_out(self.fleet.started(name, self.now, self.runs[name]))
            elif phase == "stopping":
                del self.children[name]
                self.carry_out(self.fleet.ended(name, None, self.now))
        self.now = max(self.now, self.fleet.next_tick(self.now) or self.now)
        self.carry_out(self.fleet.tick(self.now))


Fleet.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestFleet = Fleet.TestCase
