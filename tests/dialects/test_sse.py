"""Server-sent events, however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects import sse
from llamarunner.dialects.sse import ServerSentEvent, Splitter
from llamarunner.errors import BackendFailed

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
NAMES = st.one_of(st.just(""), st.sampled_from(["error", "message_start", "é"]))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[ServerSentEvent]]:
    """A stream, and the events that are in it."""
    text, events = draw(st.sampled_from(["", "\ufeff"])), []
    for lines in draw(st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=4)):
        end, name = draw(LINE_ENDS), draw(NAMES)
        text += draw(st.sampled_from(["", f": comment{end}", f"id: 7{end}", f":{end}{end}", f"dataset: x{end}"]))
        text += f"event: {name}{end}" if name else ""
        text += "".join(f"data: {line}{end}" for line in lines) + end
        events.append(ServerSentEvent("\n".join(lines), name or "message"))
    return text.encode(), events


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


def read(chunks: list[bytes]) -> list[ServerSentEvent]:
    splitter = Splitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=8))
def test_the_events_of_a_stream_are_the_same_in_every_cut(
    made: tuple[bytes, list[ServerSentEvent]], places: list[int]
) -> None:
    stream, events = made
    assert read(cut(stream, places)) == events
    assert read([stream[index : index + 1] for index in range(len(stream))]) == events


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_whatever_the_bytes_are_the_cut_makes_no_difference(stream: bytes, places: list[int]) -> None:
    assert read(cut(stream, places)) == read([stream])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b", ["a"]),  # an event that the stream breaks off is none
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data\n\n", [""]),
        (b"data: a\r\rdata: b\r\n\r\n", ["a", "b"]),
        (b"event: x\n\ndata: a\n\n", ["a"]),
        (b": keep-alive\n\n\n\ndata: \xff\n\n", ["\ufffd"]),
    ],
)
def test_odd_streams_are_read_as_the_standard_has_it(stream: bytes, events: list[str]) -> None:
    assert read([stream]) == [ServerSentEvent(data) for data in events]


def test_an_event_without_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    splitter = Splitter()
    for _ in range(9):
        assert splitter.feed(b"data: " + b"x" * 90 + b"\n\n")
    for _ in range(10):
        splitter.feed(b"data: " + b"x" * 90 + b"\n")
    with pytest.raises(BackendFailed):
        splitter.feed(b"y" * 100)
