"""A recording as slices of samples, in bounded memory.

FFmpeg reads the one file it is given, and no more (`CLOSED`). It is given an open file, never a name, which could be
`concat:` or `http:`. An allow-list of formats keeps out playlists, whose parts may be any file and address, and SDP,
which would open network ports and wait there. No protocol may be used, whatever a format refers to, such as an mp4's
external data. And nothing is decoded but sound: a cover of some kilobytes may be a picture of gigabytes.

A recording is decoded as it is heard. What its header says about its length is a hint: samples are counted, and the
decoding ends at the limit. A damaged packet is skipped, as players do, and a file cut short gives what is there.

The index of an MP4 file may tell in three kilobytes of so many packets, or be compressed so well, that it takes
gigabytes. FFmpeg reads it in one go, and is told how much it may allocate for that.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import av
import av._core
import numpy as np


def _decodes_sound(codec: str) -> bool:
    try:
        kind: str = av.Codec(codec, "r").type
    except ValueError:  # it can be written only
        return False
    return kind == "audio"


RATE = 16_000  # samples a second, as Whisper hears
LEAST_RATE = 1000  # samples a second of a recording; at 1 Hz a small file would become gigabytes of ours
MOST_RATE = 768_000  # the filter that resamples grows with it: to half a gigabyte, in seconds, at 500 MHz
FRAME_SECONDS = 120  # most that a frame of a recording may last, which is resampled at once
SHORTEST_SECONDS = 0.1  # as OpenAI's limit is
WHOLE_SECONDS = 90  # a recording up to this long is one slice
FIRST_SLICE_SECONDS = 30  # of a longer one: one window of Whisper, so that the first words come early
SLICE_SECONDS = 120  # takes some 100 MB while it is turned into features
LOOK_BACK = 1 / 3  # of a slice, at its end, in which the place for the cut is looked for
FRAME = RATE // 50
SMOOTH_FRAMES = 15  # 0.3 s
MOST_TRACKS = 16
MOST_ALLOCATED = 32 << 20  # bytes at once; the index of a track of four hours takes 16 MB
FORMATS = (
    "wav,w64,aiff,au,caf,mp3,flac,ogg,aac,amr,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,asf"  # demuxers of FFmpeg
)
SOUND = ",".join(sorted(name for name in av.codecs_available if _decodes_sound(name)))
CLOSED = {
    "format_whitelist": FORMATS,
    "protocol_whitelist": "",
    "codec_whitelist": SOUND,
    "max_streams": str(MOST_TRACKS),
}
READABLE = "flac, mp3, mp4, mpeg, mpga, m4a, oga, ogg, wav, webm"


class BadAudio(Exception):
    """The file is at fault; `code` tells programs how."""

    param = "file"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Slice:
    """Some seconds of a recording: float32, mono, 16 kHz."""

    samples: np.ndarray
    offset: float  # seconds at which it begins

    @property
    def end(self) -> float:
        return self.offset + len(self.samples) / RATE


class Recording:
    """An open recording; use it until `close`."""

    def __init__(self, path: str, most_seconds: float) -> None:
        """Open the file and read its header. Raises BadAudio."""
        self._most_seconds = most_seconds
        with ExitStack() as stack:
            file = stack.enter_context(open(path, "rb"))
            self._container = stack.enter_context(_opened(file))
            self.duration = self._told_duration()
            if not self._container.streams.audio:
                raise BadAudio("invalid_audio", "The file has no sound in it.")
            if self.duration and self.duration > most_seconds:
                raise self._too_long()
            self._open = stack.pop_all()

    def close(self) -> None:
        self._open.close()

    def slices(self, check: Callable[[], None]) -> Iterator[Slice]:
        """Decode it, slice by slice, each cut where it is quiet; `check` is called often, and may raise.

        Raises BadAudio for one that is too short, too long, or has nothing that can be decoded.
        """
        pieces: list[np.ndarray] = []
        held, done, enough, wanted = 0, 0, WHOLE_SECONDS * RATE, FIRST_SLICE_SECONDS * RATE
        for piece in self._samples(check):
            pieces.append(piece)
            held += len(piece)
            if done + held > self._most_seconds * RATE:
                raise self._too_long()
            while held > enough:
                whole = np.concatenate(pieces)
                at = quiet_place(whole[:wanted])
                yield Slice(whole[:at], done / RATE)
                pieces, held, done = [whole[at:]], held - at, done + at
                enough = wanted = SLICE_SECONDS * RATE
        if done + held < SHORTEST_SECONDS * RATE:
            raise self._too_short(done + held)
        if held >= SHORTEST_SECONDS * RATE:
            yield Slice(np.concatenate(pieces), done / RATE)

    def _samples(self, check: Callable[[], None]) -> Iterator[np.ndarray]:
        resampler, shape = _resampler(), None
        for frame in self._frames(check):
            _check_frame(frame)
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if now != shape:
                yield from _through(resampler, None)
                resampler, shape = _resampler(), now
            frame.pts = None  # gaps in time are no gaps in sound
            yield from _through(resampler, frame)
        yield from _through(resampler, None)

    def _frames(self, check: Callable[[], None]) -> Iterator[Any]:
        packets = self._container.demux(self._container.streams.audio[0])
        while True:
            check()
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # the rest cannot be read
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue

    def _told_duration(self) -> float | None:
        told = self._container.duration  # microseconds
        return told / 1_000_000 if told and told > 0 else None

    def _too_long(self) -> BadAudio:
        return BadAudio("audio_too_long", f"The recording is longer than the limit of {clock(self._most_seconds)}.")

    def _too_short(self, samples: int) -> BadAudio:
        if samples == 0:
            return BadAudio("invalid_audio", "The file has no sound in it that can be decoded.")
        least = f"Minimum audio length is {SHORTEST_SECONDS} seconds."
        return BadAudio("audio_too_short", f"Audio file is too short. {least}")


def quiet_place(samples: np.ndarray) -> int:
    """Where to cut: the middle of the longest quiet in the last part of a slice."""
    start = int(len(samples) * (1 - LOOK_BACK))
    frames = (len(samples) - start) // FRAME
    if frames <= SMOOTH_FRAMES:
        return len(samples)
    power = np.square(samples[start : start + frames * FRAME].reshape(frames, FRAME)).mean(axis=1)
    loudness = np.convolve(power, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES), "valid")
    quiet = loudness <= loudness.min() * 2 + 1e-9
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False])).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    middle = (int(begins[longest]) + int(ends[longest]) - 1 + SMOOTH_FRAMES) // 2
    return start + middle * FRAME


def clock(seconds: float) -> str:
    """Write a length for people, such as `4 hours`."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}" + ("" if seconds == size else "s")
    return f"{seconds:g} seconds"


def _opened(file: BinaryIO) -> Any:
    _limit_allocations()
    try:
        return av.open(file, mode="r", metadata_errors="ignore", options=CLOSED)
    except (av.FFmpegError, ValueError, OSError):
        raise BadAudio("invalid_audio", f"Invalid file format. Supported formats: {READABLE}.") from None


@cache
def _limit_allocations() -> None:
    """Tell FFmpeg, for the whole process. PyAV has no word for it, but is linked to the library that has."""
    linked = av._core.__file__
    if sys.platform == "win32":  # which finds names only in the library itself
        linked = str(next((Path(av.__file__).parent.parent / "av.libs").glob("avutil-*.dll")))
    ctypes.CDLL(linked).av_max_alloc(ctypes.c_size_t(MOST_ALLOCATED))


def _resampler() -> Any:
    return av.AudioResampler(format="flt", layout="mono", rate=RATE)


def _check_frame(frame: Any) -> None:
    """Refuse what would take far more memory at our rate. Raises BadAudio."""
    if frame.sample_rate < LEAST_RATE:
        raise BadAudio("invalid_audio", f"The recording has fewer than {LEAST_RATE} samples a second.")
    if frame.sample_rate > MOST_RATE:
        raise BadAudio("invalid_audio", f"The recording has more than {MOST_RATE} samples a second.")
    if frame.samples > FRAME_SECONDS * frame.sample_rate:
        raise BadAudio("invalid_audio", f"The recording has a frame that is longer than {FRAME_SECONDS} seconds.")


def _through(resampler: Any, frame: Any) -> Iterator[np.ndarray]:
    """Resample a frame, or what is left if there is none; what cannot be resampled, as 63 channels, gives nothing."""
    try:
        found = resampler.resample(frame)
    except (av.FFmpegError, ValueError):
        found = []
    return map(_array, found)


def _array(frame: Any) -> np.ndarray:
    """Samples as the model expects them; a file of floats may hold anything."""
    samples = np.array(frame.to_ndarray(), np.float32).reshape(-1)
    np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(samples, -1.0, 1.0, out=samples)
