"""Budgets as values: every schedule of requests is played on a clock of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llamarunner.config import NO_LIMITS, RateLimits
from llamarunner.errors import RateLimited
from llamarunner.limits import SECOND, WINDOW, Account, Bucket, Limiter, Standing, Ticket, Usage, network_of

LIMITS = RateLimits()
START = 987_654_321_123_456_789

# Gaps between requests: a clock of quarter seconds makes the borders of buckets and of the window likely, any
# nanosecond makes the rest possible.
GAPS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 5, 120, 232, 234, 235, 236, 237, 238, 239, 240, 241, 244, 480]).map(
        lambda quarters: quarters * SECOND // 4
    ),
    st.sampled_from([SECOND - 1, SECOND + 1, WINDOW - 1, WINDOW + 1]),
    st.integers(0, 2 * WINDOW),
)
SCHEDULES = st.lists(GAPS, max_size=120)
RATES = st.integers(1, 5)
STARTS = st.integers(0, 2 * SECOND)


def rated(limit: int | None, client: str = "192.0.2.1") -> Account:
    """An account whose rate alone is limited."""
    return Account(client, NO_LIMITS.model_copy(update={"requests_per_minute": limit}))


@dataclass
class Player:
    """A client that asks, on a clock that it moves itself."""

    account: Account
    now: int = START
    limiter: Limiter = field(default_factory=Limiter)
    admitted: list[int] = field(default_factory=list)

    def ask(self) -> float | None:
        """Ask now; returns the seconds to wait when refused."""
        try:
            self.limiter.admit(self.account, self.now).release()
        except RateLimited as refusal:
            return refusal.retry_after
        self.admitted.append(self.now)
        return None

    def ask_and_obey(self) -> None:
        """Ask, and if refused, ask again a second too early, and in time."""
        seconds = self.ask()
        if seconds is not None:
            assert 1 <= seconds <= 60
            assert seconds == int(seconds)
            self.now += (int(seconds) - 1) * SECOND
            assert self.ask() is not None
            self.now += SECOND
            assert self.ask() is None

    def standing(self) -> Standing:
        standing = self.limiter.standing(self.account, self.now)
        assert standing
        return standing


def most_in_a_window(times: list[int], window: int) -> int:
    """The largest number of times within any half-open span of this length."""
    return max((sum(start <= time < start + window for time in times) for start in times), default=0)


# ── the rate ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hundredth_passes_and_the_next_is_told_how_long_to_wait() -> None:
    player = Player(rated(100))
    assert [player.ask() for _ in range(100)] == [None] * 100
    player.now += 30 * SECOND
    with pytest.raises(RateLimited) as caught:
        player.limiter.admit(player.account, player.now)
    error = caught.value
    assert error.message == "Rate limit exceeded. Try again in 30 seconds."
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert error.retry_after == 30
    player.now += 30 * SECOND - 1
    assert player.ask() == 1
    player.now += 1
    assert player.ask() is None


def test_a_second_counts_until_a_minute_after_its_last_request() -> None:
    player = Player(rated(3))
    second = START - START % SECOND
    for tenth in (0, 5, 9):
        player.now = second + tenth * SECOND // 10
        assert player.ask() is None
    player.now = second + WINDOW
    assert player.ask() == 1
    player.now = second + WINDOW + 9 * SECOND // 10
    assert [player.ask() for _ in range(4)] == [None, None, None, 60]


@given(RATES, STARTS, SCHEDULES)
def test_no_schedule_passes_more_than_the_limit_in_any_minute(limit: int, start: int, gaps: list[int]) -> None:
    player = Player(rated(limit), start)
    for gap in gaps:
        player.now += gap
        player.ask()
    assert most_in_a_window(player.admitted, WINDOW) <= limit


@given(RATES, STARTS, SCHEDULES)
def test_whoever_stays_within_the_limit_in_any_61_seconds_is_never_refused(
    limit: int, start: int, gaps: list[int]
) -> None:
    player, honest = Player(rated(limit), start), []
    for gap in gaps:
        player.now += gap
        if most_in_a_window([*honest, player.now], 61 * SECOND) <= limit:
            honest.append(player.now)
            assert player.ask() is None


@given(RATES, STARTS, SCHEDULES)
def test_obeying_retry_after_always_works_and_less_never_does(limit: int, start: int, gaps: list[int]) -> None:
    player = Player(rated(limit), start)
    for gap in gaps:
        player.now += gap
        player.ask_and_obey()


@given(RATES, STARTS, SCHEDULES)
def test_so_many_as_remain_pass_at_once_and_more_after_the_reset(limit: int, start: int, gaps: list[int]) -> None:
    player = Player(rated(limit), start)
    for gap in gaps:
        player.now += gap
        player.ask()
    told = player.standing()
    assert told == player.standing()  # asking costs nothing
    assert 0 <= told.remaining <= told.limit == limit
    assert [player.ask() for _ in range(told.remaining)] == [None] * told.remaining
    assert player.ask() is not None
    assert player.standing().remaining == 0
    player.now += told.reset * SECOND
    assert player.ask() is None


@given(RATES, RATES, SCHEDULES, SCHEDULES)
def test_a_changed_limit_holds_at_once_for_what_was_asked_before(
    before: int, after: int, gaps: list[int], more: list[int]
) -> None:
    player = Player(rated(before))
    for gap in gaps:
        player.now += gap
        player.ask()
    kept, player.account = len(player.admitted), rated(after)
    for gap in more:
        player.now += gap
        player.ask_and_obey()
    for last in range(kept, len(player.admitted)):
        now = player.admitted[last]
        assert sum(time > now - WINDOW for time in player.admitted[: last + 1]) <= after


def test_no_request_counts_for_longer_than_61_seconds() -> None:
    player = Player(rated(2), START - START % (2 * SECOND))
    assert player.ask() is None
    player.now += 2 * SECOND - 1
    assert player.ask() is None
    player.now += 59 * SECOND + 1
    assert player.ask() is None


def test_nothing_remains_under_a_limit_that_was_lowered() -> None:
    player = Player(rated(5))
    for _ in range(5):
        player.ask()
        player.now += SECOND
    player.account = rated(2)
    assert player.standing() == (2, 0, 58)  # until the fourth is a minute old
    assert player.ask() == 58


def test_what_was_asked_without_a_limit_counts_when_there_is_one() -> None:
    player = Player(rated(None))
    assert [player.ask() for _ in range(1000)] == [None] * 1000
    assert player.limiter.standing(player.account, player.now) is None
    player.account = rated(1000)
    assert player.ask() == 60


def test_clients_do_not_count_for_each_other() -> None:
    one = Player(rated(2, "192.0.2.1"))
    other = Player(rated(2, "192.0.2.2"), limiter=one.limiter)
    assert [one.ask() for _ in range(3)] == [None, None, 60]
    assert [other.ask() for _ in range(3)] == [None, None, 60]


def test_headers_say_what_remains() -> None:
    player = Player(rated(100))
    for _ in range(58):
        player.ask()
    player.now += 43 * SECOND - 1
    assert player.standing().headers() == {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "42",
        "X-RateLimit-Reset": "18",
        "X-RateLimit-Limit-Requests": "100",
        "X-RateLimit-Remaining-Requests": "42",
        "X-RateLimit-Reset-Requests": "18s",
        "RateLimit-Policy": '"requests";q=100;w=60',
        "RateLimit": '"requests";r=42;t=18',
    }


# ── at the same time ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_is_a_request_too_and_its_release_gives_both_back() -> None:
    limiter, account = Limiter(), Account("a", LIMITS.model_copy(update={"concurrent_requests": 6}))
    tickets = [limiter.admit(account, START) for _ in range(6)]
    for ticket in tickets[:5]:
        ticket.begin_stream()
        ticket.begin_stream()  # once is as good as twice
    with pytest.raises(RateLimited, match=r"^Too many streams at the same time; the limit is 5\.$") as streams:
        tickets[5].begin_stream()
    with pytest.raises(RateLimited, match=r"^Too many requests at the same time; the limit is 6\.$") as requests:
        limiter.admit(account, START)
    assert streams.value.retry_after == requests.value.retry_after == 1
    tickets[0].release()
    tickets[0].release()
    tickets[5].begin_stream()
    limiter.admit(account, START)
    with pytest.raises(RateLimited):
        limiter.admit(account, START)


def test_a_ticket_is_released_whatever_happens() -> None:
    limiter, account = Limiter(), Account("a", LIMITS.model_copy(update={"concurrent_requests": 1}))

    def fail(failure: type[BaseException]) -> None:
        with limiter.admit(account, START) as ticket:
            ticket.begin_stream()
            raise failure

    for failure in (ValueError, KeyboardInterrupt):
        with pytest.raises(failure):
            fail(failure)
    limiter.admit(account, START).release()


def test_what_is_refused_does_not_count() -> None:
    limiter = Limiter()
    account = Account("a", RateLimits(requests_per_minute=3, concurrent_requests=1))
    ticket = limiter.admit(account, START)
    for _ in range(10):
        with pytest.raises(RateLimited, match="same time"):
            limiter.admit(account, START)
    assert limiter.standing(account, START) == (3, 2, 60)
    ticket.release()
    for _ in range(2):
        limiter.admit(account, START).release()
    with pytest.raises(RateLimited, match="Try again in 60 seconds"):
        limiter.admit(account, START)


class Budgets(RuleBasedStateMachine):
    """Several clients come, stream, leave and leave again, in any order; a plain count is the model."""

    LIMITS = RateLimits(requests_per_minute=8, concurrent_requests=3, streaming_connections=2)
    clients = st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::/64"])

    def __init__(self) -> None:
        super().__init__()
        self.limiter = Limiter()
        self.now = START
        self.running: list[tuple[str, Ticket, bool]] = []
        self.done: list[Ticket] = []

    @rule(gap=GAPS)
    def wait(self, gap: int) -> None:
        self.now += gap

    @rule(client=clients)
    def come(self, client: str) -> None:
        account = Account(client, self.LIMITS)
        standing = self.limiter.standing(account, self.now)
        assert standing
        fits = standing.remaining > 0 and sum(name == client for name, _, _ in self.running) < 3
        try:
            ticket = self.limiter.admit(account, self.now)
        except RateLimited:
            assert not fits
        else:
            assert fits
            self.running.append((client, ticket, False))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def stream(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.running) - 1))
        client, ticket, streams = self.running[index]
        fits = streams or sum(name == client and other for name, _, other in self.running) < 2
        try:
            ticket.begin_stream()
        except RateLimited:
            assert not fits
        else:
            assert fits
            self.running[index] = (client, ticket, True)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, ticket, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        ticket.release()
        self.done.append(ticket)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.done))
        ticket.release()
        ticket.begin_stream()  # of a request that is over: nothing

    @invariant()
    def nobody_is_counted_wrongly(self) -> None:
        for client, usage in self.limiter._clients.items():
            mine = [streams for name, _, streams in self.running if name == client]
            assert (usage.running, usage.streams) == (len(mine), sum(mine))


TestBudgets = Budgets.TestCase


# ── memory ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def address(number: int) -> str:
    return f"{10 + (number >> 24)}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def test_idle_clients_are_forgotten() -> None:
    limiter, account = Limiter(), rated(10)
    for number in range(1000):
        limiter.admit(rated(10, address(number)), START).release()
    assert len(limiter) == 1000
    busy = limiter.admit(rated(10, "192.0.2.9"), START)
    for turn in range(1000):
        limiter.admit(account, START + WINDOW + turn * 10 * SECOND).release()
    assert len(limiter) == 2  # the one that asks, and the one whose request still runs
    busy.release()


def test_ten_thousand_addresses_have_a_budget_each() -> None:
    limiter = Limiter()
    for turn in range(3):
        for number in range(10_000):
            limiter.admit(rated(3, address(number)), START + turn).release()
    assert len(limiter) == 10_000
    for number in range(10_000):
        with pytest.raises(RateLimited):
            limiter.admit(rated(3, address(number)), START + 3)


def test_a_full_house_forgets_nobody_and_stays_within_its_bound() -> None:
    """Newcomers share the budget of their network, until there is room and their network's minute is over."""
    limiter = Limiter(most_clients=100)
    early = rated(1, "192.0.2.1")
    limiter.admit(early, START).release()
    passed = 0
    for number in range(100_000):
        try:
            limiter.admit(rated(5, address(number)), START + number).release()
            passed += 1
        except RateLimited:
            pass
        assert len(limiter) <= 201
    assert passed == 99 + 2 * 5  # 100 000 addresses are two networks
    with pytest.raises(RateLimited):
        limiter.admit(early, START + WINDOW - 1)
    late = rated(5, address(77_777))
    with pytest.raises(RateLimited):
        limiter.admit(late, START + 100_000)
    for turn in range(100):  # the house empties, but the network's minute is not over for all
        limiter.admit(early, START + WINDOW + turn * WINDOW).release()
    assert len(limiter) == 1
    limiter.admit(late, START + 200 * WINDOW).release()
    assert late.client in limiter._clients


def test_when_there_are_too_many_networks_the_rest_share_one_budget() -> None:
    limiter = Limiter(most_clients=10)
    refused = 0
    for number in range(0, 100 << 16, 1 << 16):
        try:
            limiter.admit(rated(5, address(number)), START).release()
        except RateLimited:
            refused += 1
    assert len(limiter) == 21
    assert refused == 100 - 10 - 10 - 5


@given(st.lists(st.tuples(st.integers(0, 40), GAPS), max_size=150))
def test_no_client_passes_more_than_its_limit_however_full_the_house_is(asked: list[tuple[int, int]]) -> None:
    limiter, now = Limiter(most_clients=3), START
    admitted: dict[str, list[int]] = {}
    for number, gap in asked:
        now += gap
        client = address(number << 13)  # eight to a network
        try:
            limiter.admit(rated(2, client), now).release()
        except RateLimited:
            continue
        admitted.setdefault(client, []).append(now)
    assert all(most_in_a_window(times, WINDOW) <= 2 for times in admitted.values())


def test_one_client_takes_little_memory_however_it_asks() -> None:
    usage = Usage()
    for tenth in range(10_000):
        usage.requests(START + tenth * SECOND // 10)
        usage.add(START + tenth * SECOND // 10)
    assert sys.getsizeof(usage._buckets) < 1300


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("198.51.100.7", "198.51.0.0/16"),
        ("2001:db8:1:2::/64", "2001:db8::/32"),
        ("::1", "::/32"),
        ("key phone", "key phone"),
    ],
)
def test_networks(client: str, network: str) -> None:
    assert network_of(client) == network


# ── messages of one connection ─────────────────────────────────────────────────────────────────────────────────────

PAUSES = st.lists(st.one_of(st.just(0), st.integers(0, SECOND // 5), st.integers(0, 5 * SECOND)), max_size=120)


@given(PAUSES, st.integers(1, 20), st.integers(1, 40))
def test_in_no_span_of_time_pass_more_messages_than_rate_and_burst_allow(
    pauses: list[int], rate: int, burst: int
) -> None:
    bucket, now, passed = Bucket(rate, burst, START), START, []
    for pause in pauses:
        now += pause
        if bucket.take(now):
            passed.append(now)
    for number, first in enumerate(passed):
        for count, last in enumerate(passed[number:], 1):
            assert count <= burst + rate * (last - first) / SECOND + 1e-6


@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, SECOND))
def test_a_burst_passes_and_then_whoever_keeps_to_the_rate_is_never_refused(rate: int, burst: int, more: int) -> None:
    bucket, now = Bucket(rate, burst, START), START
    assert all(bucket.take(now) for _ in range(burst))
    assert not bucket.take(now)
    for _ in range(50):
        now += -(-SECOND // rate) + more
        assert bucket.take(now)


def test_a_bucket_tells_when_what_was_charged_is_paid_off() -> None:
    bucket = Bucket(20, 40, START)
    assert bucket.take(START)
    assert bucket.charge(10) == 0
    assert bucket.take(START)
    seconds = bucket.charge(60)
    assert 1.5 < seconds < 2
    assert not bucket.take(START + int((seconds - 0.1) * SECOND))
    assert bucket.take(START + int(seconds * SECOND))
