"""The frames of a websocket, in whatever pieces they arrive."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.server.frames import MOST_FRAMES, SECONDS, Frames

TEXT, MORE, FINAL, PING = 0x01, 0x00, 0x80, 0x89


def frame(first: int, size: int = 0) -> bytes:
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 2**16:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + os.urandom(4 + size)


MESSAGES = st.lists(st.lists(st.sampled_from([0, 1, 125, 126, 200, 2**16]), min_size=1, max_size=5), max_size=8)


@given(MESSAGES, st.lists(st.integers(1, 3000), min_size=1, max_size=5), st.booleans())
def test_whole_messages_are_sound_whenever_they_come(sizes: list[list[int]], cuts: list[int], pings: bool) -> None:
    """And none is under way after them, however the bytes are cut."""
    data = b""
    for message in sizes:
        for number, size in enumerate(message):
            data += frame((MORE if number else TEXT) | FINAL * (number == len(message) - 1), size)
            data += frame(PING, 3) * pings
    frames, at, turn = Frames(), 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        assert frames.feed(data[at : at + step], 0) is None
        at, turn = at + step, turn + 1
    assert frames.feed(frame(PING), SECONDS * 100) is None


@given(st.integers(0, 3), st.integers(1, 40))
def test_a_message_of_too_many_frames_is_noticed(size: int, together: int) -> None:
    frames = Frames()
    assert frames.feed(frame(TEXT, 1), 0) is None
    assert all(frames.feed(frame(MORE, size), 0) is None for _ in range(MOST_FRAMES - 1))
    assert frames.feed(frame(MORE, size) * together, 0) == "Too many frames."


def test_messages_of_many_frames_are_counted_apart() -> None:
    frames = Frames()
    for _ in range(3):
        for _ in range(MOST_FRAMES - 1):
            assert frames.feed(frame(MORE, 1), 0) is None
        assert frames.feed(frame(FINAL, 1), 0) is None


def test_too_many_pings_at_once_are_noticed() -> None:
    assert Frames().feed(frame(PING) * (MOST_FRAMES + 1), 0) == "Too many frames."


@pytest.mark.parametrize(
    "first",
    [frame(TEXT), frame(TEXT | FINAL, 100)[:-1], frame(TEXT | FINAL, 2**16)[:20]],
    ids=["fragment", "cut", "long"],  # their masks differ each time
)
def test_a_message_that_does_not_end_is_late(first: bytes) -> None:
    frames = Frames()
    assert frames.feed(first, 10) is None
    assert frames.feed(b"", 10 + SECONDS) is None
    assert frames.feed(b"", 10 + SECONDS + 1) == "The message did not arrive in time."


def test_many_calls_may_arrive_at_once() -> None:
    """An SDK that embeds a list of texts sends a call for each, and they are read as many as they come."""
    assert Frames().feed(frame(TEXT | FINAL, 64) * 4000, 0) is None
    assert Frames().feed(frame(TEXT | FINAL, 63) * 4000, 0) == "Too many frames."
