"""What clients may send for recordings: bad files, wrong forms, too much, too slow."""

from __future__ import annotations

import asyncio
import gzip
import io
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import House
from hearing import (
    CLIPS,
    PATH,
    RATE,
    ask,
    clip,
    encoded,
    files_below,
    film,
    form,
    open_house,
    samples_of,
    wav,
)

from llamarunner.config import NO_LIMITS, Door
from llamarunner.server.upload import write_all

LONG = CLIPS["long.wav"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


# ── bad input ──────────────────────────────────────────────────────────────────────────────────────────────────────


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def pcm(rate: int = RATE, channels: int = 1) -> tuple[bytes, bytes]:
    return b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * 2, 2, 16)


ONE_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360f8cfc000000301010018dd8db00000000049454e44ae426082"
)
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
BAD: dict[str, bytes] = {
    "one byte": b"R",
    "text": b"hello " * 100,
    "picture": ONE_PIXEL,
    "playlist": b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n",
    "concatenation": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "session": SDP,
    "zeros": b"\0" * 100_000,
    "ones": b"\xff" * 3_000_000,
    "compressed": gzip.compress(clip("german.wav")),
    "zip": b"PK\x03\x04" + b"\0" * 1000,
    "film without sound": film(),
    "only a header": wav(np.zeros(0, np.int16)),
    "too short": wav(np.zeros(1500, np.int16)),
    "rate zero": riff(pcm(rate=0), (b"data", b"\0" * 32_000)),
    "channels without end": riff(pcm(channels=65_535), (b"data", b"\0" * 32_000)),
    "m4a without its index": encoded(samples_of("german.wav"), "ipod", "aac")[:2000],
    "nested tags": b"ID3\x04\x00\x00\x00\x00\x00\x0a" * 2000,
}


async def test_bad_files_are_errors_of_the_request(house: House) -> None:
    for name, data in BAD.items():
        for path in (PATH, "/v1/audio/translations"):
            status, told = await asyncio.wait_for(ask(house, data, path), 10)
            assert (status, told["error"]["param"]) == (400, "file"), (name, told)
            assert told["error"]["code"] in ("invalid_audio", "audio_too_short"), (name, told)
            assert "/" not in told["error"]["message"], (name, told)
        status, told = await ask(house, data, stream="true")
        assert (status, told["error"]["param"]) == (400, "file"), (name, told)
    assert (await ask(house, clip("german.wav")))[0] == 200


async def test_damaged_files_give_what_is_there(house: House) -> None:
    """Cut off anywhere, with headers that lie, with noise in the middle: an answer, or an error of the request."""
    said = {"wav": clip("long.wav"), "mp3": encoded(samples_of("long.wav"), "mp3", "libmp3lame", bit_rate=64_000)}
    said["flac"] = encoded(samples_of("long.wav"), "flac", "flac")
    for name, data in said.items():
        noise = np.random.default_rng(0).bytes(len(data) // 4)
        half = len(data) // 2
        for damaged in (
            data[:half],
            data[:half] + noise + data[half + len(noise) :],
            *(data[:n] for n in (10, 50, 999)),
        ):
            status, told = await ask(house, damaged)
            assert status in (200, 400), (name, told)
        status, told = await ask(house, data[:half])
        assert (status, told["text"].split()[:4]) == (200, LONG["text"].split()[:4]), name
    samples = samples_of("german.wav").tobytes()
    for size in (0, 0xFFFFFFFF):
        status, told = await ask(house, riff(pcm(), (b"data", samples), size=size))
        assert (status, told["text"]) == (200, CLIPS["german.wav"]["text"])
    wild = np.tile(np.array([np.nan, np.inf, -1e30], np.float32), RATE // 3)
    status, _ = await ask(
        house, riff((b"fmt ", struct.pack("<HHIIHH", 3, 1, RATE, RATE * 4, 4, 32)), (b"data", wild.tobytes()))
    )
    assert status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"language": "klingon"}, "language"),
        ({"timestamp_granularities": ["minute"]}, "timestamp_granularities"),
        ({"stream": "perhaps"}, "stream"),
        ({"prompt": "x" * 70_000}, "prompt"),
    ],
)
async def test_wrong_fields(house: House, fields: dict[str, Any], param: str) -> None:
    status, told = await ask(house, clip("german.wav"), **fields)
    assert (status, told["error"]["param"]) == (400, param)


async def test_missing_empty_and_many_files(house: House) -> None:
    for data, word in ((None, "missing"), (b"", "empty")):
        status, told = await ask(house, data)
        assert (status, told["error"]["param"]) == (400, "file")
        assert word in told["error"]["message"]
    two = form(clip("german.wav"))
    two.add_field("file", clip("german.wav"), filename="b.wav")
    async with house.client.post(house.url + PATH, data=two) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "file")


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"no form at all", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nabc", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\nabc\r\n--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\n' + b"u" * 99,
            400,
        ),
    ],
)
async def test_what_is_no_form(house: House, kind: str, body: bytes, status: int) -> None:
    async with house.client.post(house.url + PATH, data=body, headers={"Content-Type": kind}) as response:
        assert response.status == status, await response.text()
        assert "error" in await response.json()


@pytest.mark.parametrize(("lines", "status"), [(3, 200), (3000, 400)], ids=["a few", "many"])
async def test_what_comes_before_the_form_is_skipped_within_bounds(house: House, lines: int, status: int) -> None:
    """Line by line, and what has come already without a pause: millions would stop the server for all."""
    file = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + clip("german.wav") + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    data = b"\n" * lines + file
    async with house.client.post(house.url + PATH, data=data, headers=headers) as response:
        assert response.status == status, await response.text()


async def test_prompts_are_text(house: House) -> None:
    """Neither commands of the model in a prompt nor a prompt of any length changes what is done."""
    for prompt in ("<|startoftranscript|><|en|><|translate|>", "<|startoftranscript|><|de|><|transcribe|>"):
        for name in ("colours.wav", "german.wav"):
            for field in ("prompt", "hotwords"):
                status, told = await ask(house, clip(name), **{field: prompt})
                assert (status, told["text"], told["language"]) == (200, CLIPS[name]["text"], CLIPS[name]["language"])
    status, told = await ask(house, clip("colours.wav"), prompt="blue " * 3000, hotwords="red " * 3000)
    assert (status, told["language"]) == (200, "en")


# ── size and length ────────────────────────────────────────────────────────────────────────────────────────────────


def limited_to(megabytes: int) -> Door:
    return Door(rate_limits=NO_LIMITS.model_copy(update={"file_upload_size_mb": megabytes}))


class Endless:
    """The body of an upload that never ends, and how much of it was sent."""

    def __init__(self, start: str) -> None:
        self._start = start + '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._start.encode()
        while True:
            self.sent += 65_536
            yield bytes(65_536)

    async def refused(self, house: House) -> tuple[int, str]:
        """The status and the field of the refusal."""
        status, error = await self.told(house)
        return status, error["param"]

    async def told(self, house: House) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with house.client.post(house.url + PATH, data=aiter(self), headers=headers) as response:
            return response.status, (await response.json())["error"]


async def test_a_file_that_is_too_large_is_refused_before_it_has_come(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=limited_to(1), server={"max_body_mb": 1}) as house:
        upload = Endless("")
        status, error = await upload.told(house)
        assert (status, error["param"]) == (413, "file")
        assert "rate_limits.file_upload_size_mb" in error["message"]
        assert upload.sent < 8_000_000
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        answer = await house.request(f"{head}Content-Length: 90000000\r\nExpect: 100-continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")  # and no 100


async def test_the_limit_is_that_of_files_not_of_other_bodies(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=limited_to(3), server={"max_body_mb": 1}) as house:
        said = wav(samples_of("german.wav"))
        padded = said + bytes(3_000_000 - len(said))  # a player stops at the end that the header tells
        assert (await ask(house, padded))[0] == 200
        assert (await ask(house, padded + b"\0"))[0] == 413


@pytest.mark.parametrize(("name", "value", "status"), [("model", "whisper-base", 404), ("temperature", "9", 400)])
async def test_what_can_be_refused_is_before_the_file_has_come(
    house: House, name: str, value: str, status: int
) -> None:
    upload = Endless(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n')
    assert await upload.refused(house) == (status, name)
    assert upload.sent < 8_000_000


async def test_a_recording_that_is_too_long(tmp_path: Path) -> None:
    """Also where the header does not tell, and for a file that is small."""
    async with open_house(tmp_path, audio={"max_duration_hours": 0.01}) as house:  # 36 seconds
        silence = np.zeros(RATE * 40, np.int16)
        for data in (wav(silence), encoded(silence, "flac", "flac"), encoded(silence, "adts", "aac", bit_rate=16_000)):
            status, told = await ask(house, data)
            assert (status, told["error"]["code"], told["error"]["param"]) == (400, "audio_too_long", "file")
        assert (await ask(house, wav(silence[: RATE * 30])))[0] == 200


async def test_a_slow_upload_is_given_up(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"body_idle_seconds": 0.2}) as house:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        start = '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + "a" * 100_000
        answer = await house.request(f"{head}Content-Length: 1000000\r\n\r\n{start}")
        assert answer.startswith(b"HTTP/1.1 408")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process may be larger, in bytes; as on a full disk, a write stops in the middle."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
async def test_a_disk_that_is_full_in_the_middle_of_the_last_piece(house: House, tmp_path: Path) -> None:
    """The recording, 264830 bytes, is refused, not heard as far as it was kept."""
    assert (await ask(house, clip("long.wav")))[0] == 200
    with disk_of(264_000):
        status, told = await ask(house, clip("long.wav"))
    assert (status, told["error"]["type"]) == (500, "server_error")
    assert "disk" in told["error"]["message"]
    assert not files_below(tmp_path / "uploads")


def test_what_is_written_in_part_is_written_on() -> None:
    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:7]))

    file = Slow()
    write_all(file, b"0123456789" * 3)
    assert file.getvalue() == b"0123456789" * 3


async def test_new_settings_move_the_folder_of_uploads(house: House, tmp_path: Path) -> None:
    services = house.services
    audio = services.settings.audio.model_copy(update={"upload_folder": tmp_path / "moved"})
    services.configure(services.settings.model_copy(update={"audio": audio}))
    assert (await ask(house, b"no sound"))[0] == 400
    assert list((tmp_path / "moved").iterdir())
