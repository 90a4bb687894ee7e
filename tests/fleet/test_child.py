"""What a child prints, and what is made of it."""

from __future__ import annotations

import re

import pytest

from llamarunner.fleet.child import LINE_BYTES, LOG_BYTES, Log

ANNOUNCES = re.compile(r"^ready (?P<port>\d+)$")


async def test_announcement_is_found_however_it_is_cut_and_whatever_the_other_pipe_prints() -> None:
    log = Log(ANNOUNCES)
    for fd, data in ((2, b"loading"), (1, b"rea"), (2, b" the model\n"), (1, b"dy 42"), (2, b"x"), (1, b"\nmore\n")):
        assert not log.announced.done()
        log.pipe_data_received(fd, data)
    assert log.announced.result() == 42


async def test_only_the_first_announcement_counts() -> None:
    log = Log(ANNOUNCES)
    log.pipe_data_received(1, b"ready 1\nready 2\n")
    log.pipe_data_received(1, b"ready 3\n")
    assert log.announced.result() == 1


async def test_line_without_end_takes_bounded_memory() -> None:
    log = Log(ANNOUNCES)
    for _ in range(100):
        log.pipe_data_received(2, b"x" * 65536)
    assert len(log._partial[2]) <= LINE_BYTES
    assert sum(map(len, log._chunks)) <= LOG_BYTES


@pytest.mark.parametrize(
    ("printed", "tail"), [(b"a\nb\nc\n", ["b", "c"]), (b"\x1b[31mred\x00\n\xff\n", [" [31mred ", "\ufffd"])]
)
async def test_tail_is_the_last_lines_without_control_characters(printed: bytes, tail: list[str]) -> None:
    log = Log(ANNOUNCES)
    log.pipe_data_received(2, printed)
    assert log.tail(2) == tail
