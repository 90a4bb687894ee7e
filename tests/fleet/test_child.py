"""What a child prints, and what is made of it."""

from __future__ import annotations

import re

import pytest

from llamarunner.fleet.child import Log
from llamarunner.fleet.output import Output

ANNOUNCES = re.compile(r"^ready (?P<port>\d+)$")


async def test_announcement_is_found_however_it_is_cut_and_whatever_the_other_pipe_prints() -> None:
    log = Log(ANNOUNCES, Output())
    for fd, data in ((2, b"loading"), (1, b"rea"), (2, b" the model\n"), (1, b"dy 42"), (2, b"x"), (1, b"\nmore\n")):
        assert not log.announced.done()
        log.pipe_data_received(fd, data)
    assert log.announced.result() == 42


async def test_only_the_first_announcement_counts() -> None:
    log = Log(ANNOUNCES, Output())
    log.pipe_data_received(1, b"ready 1\nready 2\n")
    log.pipe_data_received(1, b"ready 3\n")
    assert log.announced.result() == 1


async def test_a_load_is_told_by_the_dots_of_a_line_without_end() -> None:
    log = Log(ANNOUNCES, Output())
    assert log.loaded_fraction() is None
    log.pipe_data_received(2, b"loading\n" + b"." * 20)
    assert log.loaded_fraction() == 0.2
    log.pipe_data_received(2, b"." * 30)
    assert log.loaded_fraction() == 0.5


async def test_lives_of_one_model_share_its_output_and_have_tails_of_their_own() -> None:
    output = Output()
    first, second = Log(ANNOUNCES, output), Log(ANNOUNCES, output)
    first.pipe_data_received(1, b"one\nlast words")
    first.pipe_connection_lost(1, None)
    second.pipe_data_received(1, b"two\n")
    assert output.tail(10) == ["one", "last words", "two"]
    assert first.tail(10) == ["one", "last words"]
    assert second.tail(10) == ["two"]


@pytest.mark.parametrize(
    ("printed", "tail"), [(b"a\nb\nc\n", ["b", "c"]), (b"\x1b[31mred\x00\n\xff\n", [" [31mred ", "\ufffd"])]
)
async def test_tail_is_the_last_lines_without_control_characters(printed: bytes, tail: list[str]) -> None:
    log = Log(ANNOUNCES, Output())
    log.pipe_data_received(2, printed)
    assert log.tail(2) == tail
