"""What a model prints: kept in bounded memory, and followed by those who are slow."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.fleet import output as module
from llamarunner.fleet.output import LINE_BYTES, MOST_BYTES, MOST_LINES, News, Output, Pipes


def numbered(first: int, last: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, last)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_lines_are_the_same_however_they_are_cut(printed: bytes, places: list[int]) -> None:
    bounds = [0, *sorted(min(place, len(printed)) for place in places), len(printed)]
    pipes = Pipes()
    lines = [line for start, end in itertools.pairwise(bounds) for line in pipes.feed(1, printed[start:end])]
    *whole, rest = printed.split(b"\n")
    assert lines + pipes.end(1) == whole + [rest] * bool(rest)
    assert pipes.unfinished() == []


def test_a_line_of_one_pipe_is_not_cut_by_the_other() -> None:
    pipes = Pipes()
    assert pipes.feed(1, b"on") == []
    assert pipes.feed(2, b"two\nthr") == [b"two"]
    assert pipes.unfinished() == [b"on", b"thr"]
    assert pipes.feed(1, b"e\n") == [b"one"]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_becomes_several(end: bytes) -> None:
    pipes, said = Pipes(), b"x" * (3 * LINE_BYTES + 5)
    lines = [line for start in range(0, len(said), 1000) for line in pipes.feed(1, said[start : start + 1000])]
    assert max(map(len, pipes.unfinished())) <= LINE_BYTES
    lines += pipes.feed(1, end) + pipes.end(1)
    assert b"".join(lines) == said
    assert max(map(len, lines)) == LINE_BYTES
    assert [len(line) for line in Pipes().feed(1, said + b"\n")] == [LINE_BYTES] * 3 + [5]


def test_many_lines_and_long_ones_take_bounded_memory() -> None:
    output = Output()
    output.add(numbered(0, 3 * MOST_LINES))
    assert output.tail(10**9) == [str(number) for number in range(2 * MOST_LINES, 3 * MOST_LINES)]
    output.add([b"y" * LINE_BYTES] * 100)
    assert sum(map(len, output.tail(10**9))) <= MOST_BYTES
    assert output._size == sum(map(len, output._lines))


def test_tail_is_the_last_lines_without_control_characters() -> None:
    output = Output()
    assert output.tail(5) == []
    output.add([b"a", b"\x1b[31mred\x00\r", b"\xff\tb"])
    assert output.tail(2) == [" [31mred ", "\ufffd b"]
    assert output.tail(0) == []


async def test_a_follower_begins_with_the_tail_and_gets_what_comes() -> None:
    output = Output()
    output.add([b"a", b"b", b"c"])
    with output.follow(2) as follower, output.follow(0) as late, output.follow(99) as all_of_it:
        assert await follower.news() == News(["b", "c"], 0)
        assert await all_of_it.news() == News(["a", "b", "c"], 0)
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(one.news()) for one in (follower, late)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            output.add([b"d"])
        assert [task.result() for task in waiting] == [News(["d"], 0)] * 2
    assert not output._followers


async def test_a_slow_follower_is_told_how_many_lines_it_missed() -> None:
    output = Output()
    with output.follow(0) as follower:
        output.add(numbered(0, MOST_LINES + 7))
        seen, lost = [], 0
        while len(seen) < MOST_LINES:
            news = await follower.news(999)
            assert len(news.lines) <= 999
            seen += news.lines
            lost += news.lost
    assert lost == 7
    assert seen == [str(number) for number in range(7, MOST_LINES + 7)]


async def test_lines_between_two_looks_are_neither_lost_nor_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINES", 10)
    output, printed, seen, lost = Output(), 0, [], 0
    with output.follow(0) as follower:
        for count in (1, 9, 10, 11, 3, 30, 1):
            output.add(numbered(printed, printed + count))
            printed += count
            news = await follower.news(4)
            seen += [int(line) for line in news.lines]
            lost += news.lost
        while len(seen) + lost < printed:
            news = await follower.news(4)
            seen += [int(line) for line in news.lines]
            lost += news.lost
    assert seen == sorted(set(seen))
    assert seen[-1] == printed - 1
