"""Recordings of every format, whole, damaged and hostile: heard or refused, and by the same worker to the end."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from doors import House
from hearing import CLIPS, FORMATS, RATE, ask, clip, encoded, film, open_house, repeated, samples_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speaking import share_of_errors

from llamarunner.fleet.launch import Task
from models.recipes.whisper.evaluation import distance

CODES = ("invalid_audio", "audio_too_short", "audio_too_long")
MEGABYTE = 1 << 20
PEAK = pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is told by /proc")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """At its end nothing may be left of any upload."""
    async with open_house(tmp_path, audio={"beam_size": 1}) as opened:
        assert (await ask(opened, clip("german.wav")))[0] == 200
        before = worker(opened)
        yield opened
        assert (await ask(opened, clip("german.wav")))[1]["text"] == CLIPS["german.wav"]["text"]
        assert worker(opened) == before


def worker(house: House) -> int:
    """The process that hears."""
    instance = house.services.supervisor.instance(house.services.catalog.find("demo-whisper"), Task.TRANSCRIBE)
    assert instance
    assert instance.child
    return instance.child.pid


def peak(house: House) -> int:
    """The most bytes that the worker ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker(house)}/status").read_text())
    assert found
    return int(found[1]) << 10


def written(samples: Any, name: str) -> bytes:
    container, codec, options = FORMATS[name]
    return encoded(samples, container, codec, **options)


async def test_each_format(house: House) -> None:
    """Some lose so much that one of the nine words may be heard as another."""
    said = CLIPS["transcription.wav"]["text"].split()
    pairs = []
    for name in FORMATS:
        status, told = await ask(house, written(samples_of("transcription.wav"), name), language="en")
        assert status == 200, name
        assert told["duration"] == pytest.approx(CLIPS["transcription.wav"]["seconds"], abs=0.15), name
        pairs.append((said, told["text"].split()))
        assert distance(*pairs[-1]) <= 1, name
    assert share_of_errors(pairs) <= 0.03


# ── damaged ────────────────────────────────────────────────────────────────────────────────────────────────────────

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 16_000, 1 << 28, 0x2000_0000, 0x7FFFFFFF, 0xFFFFFFFF)
Patch = tuple[float, bytes, int]  # how far into the file, what to write there, how many bytes it replaces


@cache
def whole(name: str) -> bytes:
    """A quarter of a second of speech."""
    return film() if name == "film" else written(samples_of("german.wav")[2000:6000], name)


def damaged(data: bytes, patches: Sequence[Patch], kept: float) -> bytes:
    made = bytearray(data)
    for place, new, old in patches:
        at = int(place * len(made))
        made[at : at + old] = new
    return bytes(made[: round(kept * len(made))])


numbers = st.builds(
    lambda number, size, order: (number & ((1 << 8 * size) - 1)).to_bytes(size, order),
    st.sampled_from(EDGES),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["little", "big"]),
)
pieces = st.builds(
    lambda name, place, size: whole(name)[int(place * len(whole(name))) :][:size],
    st.sampled_from(sorted(FORMATS)),
    st.floats(0, 0.999),
    st.integers(1, 500),
)
places = st.floats(0, 0.999) | st.floats(0, 0.02)  # headers are at the start
patches = st.tuples(places, numbers | pieces | st.binary(max_size=64), st.sampled_from([0, 1, 2, 4, 8, 64]))


@PEAK
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from([*FORMATS, "film"]),
    st.lists(patches, max_size=6),
    st.just(1.0) | st.floats(0, 1),
    st.sampled_from(["false", "true"]),
)
async def test_damage_anywhere(house: House, name: str, changes: list[Patch], kept: float, stream: str) -> None:
    """Numbers that lie, bytes of other files and of none, cut short: heard, or an error of the request."""
    before = peak(house)
    status, told = await ask(house, damaged(whole(name), changes, kept), stream=stream, language="en")
    if status != 200:
        assert (status, told["error"]["type"], told["error"]["param"]) == (400, "invalid_request_error", "file")
        assert told["error"]["code"] in CODES or "empty" in told["error"]["message"]
    assert peak(house) < before + 100 * MEGABYTE


# ── far larger than it looks ───────────────────────────────────────────────────────────────────────────────────────


def atom(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


def inflating(size: int) -> bytes:
    """A QuickTime film whose compressed index is of so many bytes."""
    index = zlib.compress(struct.pack(">I", size) + b"free" + bytes(size - 8), 9)
    packed = atom(b"dcom", b"zlib") + atom(b"cmvd", struct.pack(">I", size) + index)
    return atom(b"ftyp", b"qt  \0\0\0\0qt  ") + atom(b"moov", atom(b"cmov", packed))


def indexed(count: int) -> bytes:
    """An M4A file of three kilobytes that tells of so many packets, of one byte each."""
    data = bytearray(whole("m4a"))
    for name, entry in ((b"stsz", (1, count)), (b"stts", (1, count, 1024)), (b"stsc", (1, 1, count, 1))):
        at = data.index(name) + 8
        data[at : at + 4 * len(entry)] = struct.pack(f">{len(entry)}I", *entry)
    return bytes(data)


def fast(rate: int) -> bytes:
    """A wav file with so many samples a second."""
    data = bytearray(whole("wav"))
    data[24:28] = rate.to_bytes(4, "little")
    return bytes(data)


@PEAK
async def test_bombs(house: House) -> None:
    bombs = {"index": indexed(20_000_000), "compressed": inflating(300 * MEGABYTE), "rate": fast(536_886_912)}
    for name, data in bombs.items():
        assert len(data) < MEGABYTE
        before = peak(house)
        status, told = await ask(house, data)
        assert (status, told["error"]["code"]) == (400, "invalid_audio"), name
        assert peak(house) < before + 100 * MEGABYTE, name


async def test_ten_hours_of_silence(house: House) -> None:
    """In a format whose packets stand for themselves, so that a few megabytes last as long as they are repeated."""
    second = encoded(repeated("silence.wav", 20, 0), "adts", "aac", bit_rate=8000)
    status, told = await ask(house, second * 1800)
    assert (status, told["error"]["code"], told["error"]["param"]) == (400, "audio_too_long", "file")


@PEAK
async def test_memory_does_not_grow_with_the_length(house: House) -> None:
    """Words now and then in four minutes, and in ten."""

    async def hear(minutes: int) -> int:
        spoken = repeated("colours.wav", minutes * 3, 20 - CLIPS["colours.wav"]["seconds"])
        status, told = await ask(house, encoded(spoken, "flac", "flac"), language="en")
        assert status == 200
        assert told["duration"] == pytest.approx(len(spoken) / RATE, abs=1)
        assert len(told["text"].split()) > minutes * 3 * 2
        return peak(house)

    few = await hear(4)
    assert await hear(10) < few + 50 * MEGABYTE
