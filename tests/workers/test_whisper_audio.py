"""Recordings as slices: nothing lost, cut where it is quiet, within the limit."""

from __future__ import annotations

import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from llamarunner.workers.whisper_audio import FIRST_SLICE_SECONDS, RATE, SLICE_SECONDS, BadAudio, Recording, quiet_place

HOUR = 3600.0


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-8000, 8000, RATE * 400).astype(np.int16)


def file_of(folder: Path, samples: np.ndarray, rate: int = RATE, channels: int = 1) -> str:
    path = folder / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return str(path)


def read(path: str, most_seconds: float = HOUR) -> Iterator[tuple[float, np.ndarray]]:
    recording = Recording(path, most_seconds)
    try:
        for one in recording.slices(lambda: None):
            yield one.offset, one.samples
    finally:
        recording.close()


def test_slices_are_the_whole(tmp_path: Path, noise: np.ndarray) -> None:
    slices = list(read(file_of(tmp_path, noise)))
    assert len(slices) >= 4
    assert len(slices[0][1]) <= FIRST_SLICE_SECONDS * RATE
    assert all(len(samples) <= SLICE_SECONDS * RATE for _, samples in slices)
    assert np.array_equal(np.concatenate([samples for _, samples in slices]), noise.astype(np.float32) / 32768)
    ends = [offset + len(samples) / RATE for offset, samples in slices]
    assert [offset for offset, _ in slices] == [0.0, *ends[:-1]]


def test_cuts_are_in_the_pauses(tmp_path: Path, noise: np.ndarray) -> None:
    """Nine seconds of sound, one of silence, and so on."""
    at = np.arange(len(noise)) / RATE % 10
    for offset, _ in list(read(file_of(tmp_path, np.where(at < 9, noise, 0))))[1:]:
        assert 9.2 < offset % 10 < 9.8


@pytest.mark.parametrize("level", [0, 20])
def test_the_longest_pause_is_taken(level: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, RATE * 30).astype(np.float32)
    for start, length in ((21.0, 0.4), (24.0, 1.0), (28.0, 0.3)):
        samples[int(start * RATE) : int((start + length) * RATE)] *= level / 1000
    assert quiet_place(samples) / RATE == pytest.approx(24.5, abs=0.1)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.1, 1.0])
def test_what_is_too_short_to_choose_is_not_cut(seconds: float) -> None:
    samples = np.zeros(int(seconds * RATE), np.float32)
    assert 0 <= quiet_place(samples) <= len(samples)


def test_other_rates_and_channels_become_ours(tmp_path: Path) -> None:
    tone = (8000 * np.sin(np.arange(48_000) * 2 * np.pi * 440 / 48_000)).astype(np.int16)
    ((_, samples),) = read(file_of(tmp_path, np.repeat(tone, 2), 48_000, 2))
    assert len(samples) == pytest.approx(RATE, abs=50)
    assert samples.dtype == np.float32
    assert np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(440, abs=2)


@pytest.mark.parametrize("channels", [9, 17, 32, 63, 200])
def test_channels_that_cannot_be_mixed_are_the_file_s_fault(tmp_path: Path, channels: int) -> None:
    with pytest.raises(BadAudio) as refused:
        list(read(file_of(tmp_path, np.zeros(RATE * channels, np.int16), RATE, channels)))
    assert refused.value.code == "invalid_audio"


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2_147_483_647])
def test_rates_that_no_recording_has_are_the_file_s_fault(tmp_path: Path, rate: int) -> None:
    """Each sample at 1 Hz would become sixteen thousand."""
    path = Path(file_of(tmp_path, np.zeros(4000, np.int16)))
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        assert checks < 3, "goes on with it"

    recording = Recording(str(path), HOUR * 10)
    with pytest.raises(BadAudio) as refused:
        list(recording.slices(check if rate < 1000 else lambda: None))
    assert refused.value.code == "invalid_audio"
    recording.close()


def test_the_length_is_limited_by_count_and_by_header(tmp_path: Path, noise: np.ndarray) -> None:
    path = file_of(tmp_path, noise)
    with pytest.raises(BadAudio, match="limit of 5 minutes") as refused:
        Recording(path, 300)
    assert refused.value.code == "audio_too_long"
    lying = bytearray(Path(path).read_bytes())
    lying[40:44] = (3200).to_bytes(4, "little")  # a tenth of a second, as players understand it
    Path(path).write_bytes(lying)
    assert sum(len(samples) for _, samples in read(path)) <= len(noise)


class Pipe:
    """A file in which nobody can go back to write the length into the header."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


def test_the_length_is_limited_where_the_header_does_not_tell(tmp_path: Path, noise: np.ndarray) -> None:
    pipe = Pipe(tmp_path / "a.mkv")
    with av.open(pipe, "w", format="matroska") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        for start in range(0, len(noise), RATE):
            frame = av.AudioFrame.from_ndarray(noise[None, start : start + RATE], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pipe.close()
    path = str(tmp_path / "a.mkv")
    heard = read(path, 300)
    assert next(heard)[0] == 0
    with pytest.raises(BadAudio, match="limit of 5 minutes"):
        list(heard)
    assert sum(len(samples) for _, samples in read(path)) == len(noise)


def test_a_check_that_raises_ends_the_reading(tmp_path: Path, noise: np.ndarray) -> None:
    recording = Recording(file_of(tmp_path, noise), HOUR)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(recording.slices(check))
    recording.close()


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_files_are_closed_also_when_refused(tmp_path: Path, noise: np.ndarray) -> None:
    good, bad = file_of(tmp_path, noise[:RATE]), tmp_path / "bad"
    bad.write_bytes(b"nothing")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        list(read(good))
        with pytest.raises(BadAudio):
            Recording(str(bad), HOUR)
        with pytest.raises(BadAudio):
            Recording(good, 0.5)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
