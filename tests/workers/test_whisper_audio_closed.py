"""A hostile recording opens nothing: no address, no other file, no picture."""

from __future__ import annotations

import contextlib
import io
import math
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from llamarunner.workers.whisper_audio import CLOSED, RATE, BadAudio, Recording

SPEECH = Path(__file__).parent.parent / "fixtures" / "speech" / "long.wav"
ALL = {"protocol_whitelist": "file,http,tcp,udp,rtp,crypto,data", "safe": "0", "allowed_extensions": "ALL"}


@pytest.fixture
def lure() -> Iterator[socket.socket]:
    """A server that a recording may name; nobody should come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def visits(lure: socket.socket) -> int:
    count = 0
    while True:
        try:
            lure.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def heard(path: Path) -> float:
    """The loudest sample that is heard; none is minus infinity."""
    try:
        recording = Recording(str(path), 3600)
    except BadAudio:
        return -math.inf
    try:
        return max(float(np.abs(one.samples).max()) for one in recording.slices(lambda: None))
    except BadAudio:
        return -math.inf
    finally:
        recording.close()


def decoded(path: Path, options: dict[str, str]) -> float:
    """The same as FFmpeg does it with these options."""
    try:
        with path.open("rb") as file, av.open(file, "r", options=options, timeout=1) as container:
            return max(float(np.abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0))
    except (av.FFmpegError, ValueError):
        return -math.inf


def secret(folder: Path) -> Path:
    """What another has said, in a format that playlists name."""
    path = folder / "secret.ts"
    with av.open(str(SPEECH)) as source, av.open(str(path), "w", format="mpegts") as made:
        stream = made.add_stream("mp2", rate=RATE, layout="mono")
        for frame in source.decode(audio=0):
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return path


def playlist(part: str) -> str:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\n"
    return f"{head}{part}\n#EXT-X-ENDLIST\n"


def session(port: int) -> str:
    return f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n"


def listing(folder: Path, kind: str, part: str) -> Path:
    """A list of files as an upload; FFmpeg takes one for HLS by its name only."""
    path = folder / ("upload.m3u8" if kind == "hls" else "upload")
    path.write_text(playlist(part) if kind == "hls" else f"ffconcat version 1.0\nfile '{part}'\n")
    return path


@pytest.mark.parametrize("named", ["secret.ts", "{folder}/secret.ts", "file:{folder}/secret.ts"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_list_of_files_is_not_followed(tmp_path: Path, kind: str, named: str) -> None:
    secret(tmp_path)
    path = listing(tmp_path, kind, named.format(folder=tmp_path))
    assert decoded(path, ALL) > 0.01, "the list would be followed"
    assert heard(path) == -math.inf


@pytest.mark.parametrize("barrier", ["format_whitelist", "protocol_whitelist"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_each_of_two_barriers_is_enough(tmp_path: Path, kind: str, barrier: str) -> None:
    path = listing(tmp_path, kind, str(secret(tmp_path)))
    assert decoded(path, ALL | {barrier: CLOSED[barrier]}) == -math.inf


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_no_address_is_asked(tmp_path: Path, lure: socket.socket, kind: str) -> None:
    path = listing(tmp_path, kind, f"http://127.0.0.1:{lure.getsockname()[1]}/a.ts")
    decoded(path, ALL)
    assert visits(lure) > 0, "the address would be asked"
    assert heard(path) == -math.inf
    assert visits(lure) == 0


def test_a_session_description_opens_no_port(tmp_path: Path) -> None:
    """It would wait there for whoever sends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        path = tmp_path / "upload"
        path.write_text(session(probe.getsockname()[1] & ~1))
    for options, waits in ((ALL, True), (ALL | {"protocol_whitelist": CLOSED["protocol_whitelist"]}, False)):
        began = time.monotonic()
        with path.open("rb") as file, contextlib.suppress(av.FFmpegError):
            av.open(file, "r", options=options, timeout=5 if not waits else 0.2).close()
        assert (time.monotonic() - began > 0.1) is waits
    assert heard(path) == -math.inf


# ── films that keep their sound elsewhere ──────────────────────────────────────────────────────────────────────────


def film(path: Path) -> bytes:
    """A film without pictures: speech, with its directory at the end."""
    with av.open(str(SPEECH)) as source, av.open(str(path), "w", format="mov") as made:
        stream = made.add_stream("pcm_s16be", rate=RATE, layout="mono")
        for frame in source.decode(audio=0):
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return path.read_bytes()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def alias(path: str) -> bytes:
    """A reference as QuickTime writes it; of all its fields FFmpeg reads the absolute path."""
    name = path.encode()
    fields = bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    return box(
        b"alis", bytes(4) + fields + struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + b"\xff\xff\0\0"
    )


def refer(film: bytes, reference: bytes) -> bytes:
    """The same film without sound of its own: silence, and a reference to where the sound is."""
    start = film.index(b"mdat") + 4
    end = film.index(b"moov") - 4
    silent = film[:start] + bytes(end - start)
    table = box(b"dref", bytes(4) + struct.pack(">I", 1) + reference)
    old = film.index(b"dref") - 4
    size = int.from_bytes(film[old : old + 4], "big")
    directory = bytearray(film[end:old] + table + film[old + size :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = (directory.rindex if kind == b"dinf" else directory.index)(kind) - 4
        grown = int.from_bytes(directory[at : at + 4], "big") + len(table) - size
        directory[at : at + 4] = grown.to_bytes(4, "big")
    return silent + bytes(directory)


def test_a_film_with_its_sound_in_another_file(tmp_path: Path) -> None:
    whole, path = film(tmp_path / "secret.mov"), tmp_path / "upload"
    path.write_bytes(refer(whole, alias(str(tmp_path / "secret.mov"))))
    followed = {"enable_drefs": "1", "use_absolute_path": "1"}
    assert decoded(path, ALL | followed) > 0.01, "the reference would be followed"
    assert decoded(path, CLOSED | followed) == -math.inf
    assert heard(path) == -math.inf


def test_a_film_with_its_sound_at_an_address(tmp_path: Path, lure: socket.socket) -> None:
    url = b"http://127.0.0.1:%d/secret.mov\0" % lure.getsockname()[1]
    path = tmp_path / "upload"
    path.write_bytes(refer(film(tmp_path / "whole.mov"), box(b"url ", bytes(4) + url)))
    assert heard(path) == 0
    assert visits(lure) == 0


# ── pictures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def picture(side: int) -> bytes:
    """A black square as PNG, 64 bits for each of its points."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + side * 8)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_cover(picture: bytes) -> bytes:
    """Speech as mp3, with a cover in front."""
    sound = io.BytesIO()
    with av.open(str(SPEECH)) as source, av.open(sound, "w", format="mp3") as made:
        stream = made.add_stream("mp3", rate=RATE, layout="mono")
        for frame in source.decode(audio=0):
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))

    def size(number: int) -> bytes:
        return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))

    cover = b"\0image/png\0\x03\0" + picture
    frame = b"APIC" + size(len(cover)) + bytes(2) + cover
    return b"ID3\x04\0\0" + size(len(frame)) + frame + sound.getvalue()


PEAK = """
import re, sys
from pathlib import Path
from llamarunner.workers.whisper_audio import Recording

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak_kib()
seconds = sum(len(one.samples) for one in Recording(sys.argv[1], 3600).slices(lambda: None)) / 16000
print(seconds, peak_kib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of memory is told otherwise, or not")
def test_a_cover_is_not_decoded(tmp_path: Path) -> None:
    """This one would take 130 MB; one of 16384 points a side, two gigabytes."""
    path = tmp_path / "upload"
    path.write_bytes(with_cover(picture(4096)))
    told = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, check=True, text=True)
    seconds, grown_kib = map(float, told.stdout.split())
    assert 8 < seconds < 9
    assert grown_kib < 50_000
