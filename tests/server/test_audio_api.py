"""Speech to text through the doors, with the real worker and the demo model."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import openai
import psutil
import pytest
from doors import House
from hearing import CLIPS, RATE, SPEECH, clip, encoded, files_below, film, form, open_house, repeated, samples_of, wav

from llamarunner.config import NO_LIMITS, Door
from llamarunner.events import Event, Subscription, TranscriptionCompleted, TranscriptionFailed, TranscriptionProgress
from llamarunner.fleet.launch import Task

SPOKEN = [name for name, told in CLIPS.items() if told["text"]]
PATH = "/v1/audio/transcriptions"
LONG = CLIPS["long.wav"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture(params=["ollama", "lmstudio"])
async def client(house: House, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    url = house.urls[request.param] + "/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


async def ask(house: House, data: bytes | None, path: str = PATH, **fields: Any) -> tuple[int, Any]:
    async with house.client.post(house.url + path, data=form(data, **fields)) as response:
        text = await response.text()
        return response.status, json.loads(text) if response.content_type == "application/json" else text


def news(subscription: Subscription, kind: type[Event]) -> list[Any]:
    return [event for event in list(subscription._queue._queue) if isinstance(event, kind)]  # type: ignore[attr-defined]


def worker(house: House) -> psutil.Process:
    entry = house.services.catalog.find("demo-whisper")
    instance = house.services.supervisor.instance(entry, Task.TRANSCRIBE)
    assert instance
    assert instance.child
    return psutil.Process(instance.child.pid)


# ── what is heard ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_client_in_every_format(client: openai.AsyncOpenAI) -> None:
    create = client.audio.transcriptions.create
    for name in SPOKEN:
        told = await create(model="whisper-1", file=SPEECH / name)
        assert told.text == CLIPS[name]["text"]
        extra = told.model_extra or {}
        assert extra["language"] == CLIPS[name]["language"]
        assert extra["duration"] == pytest.approx(CLIPS[name]["seconds"], abs=0.02)
        assert " ".join(segment["text"] for segment in extra["segments"]) == CLIPS[name]["text"]

    async def long(kind: Any) -> Any:
        return await create(model="whisper-1", file=SPEECH / "long.wav", response_format=kind)

    assert await long("text") == LONG["text"] + "\n"
    assert await long("srt") == "".join(
        f"{number}\n{cue}\n\n" for number, cue in enumerate(cues(await long("vtt")), start=1)
    ).replace(".", ",")
    verbose = await long("verbose_json")
    assert [segment.text.strip() for segment in verbose.segments] == [said["text"] for said in LONG["segments"]]
    assert verbose.language == "english"
    assert verbose.words is None
    for segment, said in zip(verbose.segments, LONG["segments"], strict=True):
        assert segment.start == pytest.approx(said["start"], abs=0.3)
        assert segment.end == pytest.approx(said["end"], abs=0.3)


def cues(vtt: str) -> list[str]:
    head, *cues, end = vtt.split("\n\n")
    assert (head, end) == ("WEBVTT", "")
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n.+", cue) for cue in cues)
    return cues


async def test_the_official_client_with_the_times_of_words(client: openai.AsyncOpenAI) -> None:
    told = await client.audio.transcriptions.create(
        model="demo-whisper",
        file=SPEECH / "long.wav",
        response_format="verbose_json",
        timestamp_granularities=["word"],
        language="en",
    )
    assert told.words
    assert [word.word for word in told.words] == LONG["text"].split()
    begins = [begin for said in LONG["segments"] for begin in said["words"]]
    late = [abs(word.start - begin) for word, begin in zip(told.words, begins, strict=True) if begin is not None]
    assert max(late) < 0.7
    assert told.segments is None


async def test_the_official_client_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(
        model="whisper-1",
        file=SPEECH / "long.wav",
        stream=True,
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
    )
    events = [event async for event in stream]
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == LONG["text"]
    assert len(deltas) == len(events) - 1 >= 4
    assert " ".join((one.token or "").strip() for event in deltas for one in event.logprobs or []) == LONG["text"]


async def test_the_official_client_translates(client: openai.AsyncOpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="translations"):
        told = await client.audio.translations.create(model="whisper-1", file=SPEECH / "german.wav")
    assert told.text == CLIPS["german.wav"]["translation"]
    assert (told.model_extra or {})["language"] == "en"


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp3", "libmp3lame", {"bit_rate": 64_000}),
        ("ipod", "aac", {"bit_rate": 64_000}),
        ("mp4", "aac", {"bit_rate": 64_000}),
        ("ogg", "libopus", {"bit_rate": 32_000, "rate": 48_000}),
        ("webm", "libopus", {"bit_rate": 32_000, "rate": 48_000}),
        ("flac", "flac", {}),
        ("matroska", "flac", {}),
        ("wav", "pcm_s16le", {"rate": 48_000}),
        ("wav", "pcm_f32le", {}),
        ("aiff", "pcm_s16be", {}),
        ("adts", "aac", {"bit_rate": 64_000}),
    ],
)
async def test_other_formats(house: House, container: str, codec: str, options: dict[str, Any]) -> None:
    said = encoded(samples_of("transcription.wav"), container, codec, **options)
    status, told = await ask(house, said)
    assert (status, told["text"]) == (200, CLIPS["transcription.wav"]["text"])


async def test_the_file_may_come_first(house: House) -> None:
    made = aiohttp.FormData()
    made.add_field("file", clip("german.wav"), filename="../../etc/passwd; $(id)")
    made.add_field("model", "demo-whisper")
    made.add_field("response_format", "text")
    async with house.client.post(house.url + PATH, data=made) as response:
        assert (response.status, await response.text()) == (200, "drei sechs vier\n")


async def test_silence_is_no_speech(house: House) -> None:
    status, told = await ask(house, clip("silence.wav"))
    assert status == 200
    assert (told["text"], told["language"], told["segments"]) == ("", None, [])
    status, told = await ask(house, wav(np.zeros(RATE * 200, np.int16)), response_format="vtt")
    assert (status, told) == (200, "WEBVTT\n\n")


@pytest.mark.parametrize("audio", [{}, {"vad": False}, {"batch_size": 1, "beam_size": 1}])
async def test_a_recording_of_several_slices(tmp_path: Path, audio: dict[str, Any]) -> None:
    """Each phrase is heard once and at its time, although the recording is cut into slices."""
    async with open_house(tmp_path, audio=audio) as house:
        status, told = await ask(house, wav(repeated("colours.wav", 70)), language="en")
    assert status == 200
    assert told["duration"] == pytest.approx(70 * (CLIPS["colours.wav"]["seconds"] + 1), abs=0.2)
    heard = told["text"].split()
    assert word_errors(["red", "blue", "yellow"] * 70, heard) / 210 < 0.1
    starts = [segment["start"] for segment in told["segments"]]
    assert starts == sorted(starts)
    assert starts[-1] == pytest.approx(told["duration"] - 2.54, abs=0.5)


def word_errors(said: list[str], heard: list[str]) -> int:
    """The least number of words to change, add and drop."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, start=1):
        before, row = row, [number]
        for at, other in enumerate(heard):
            row.append(min(before[at] + (word != other), before[at + 1] + 1, row[at] + 1))
    return row[-1]


async def test_the_first_phrase_comes_before_the_whole_is_heard(house: House) -> None:
    said = wav(repeated("colours.wav", 120))
    with house.services.bus.subscribe() as told:
        async with house.client.post(house.url + PATH, data=form(said, stream="true")) as response:
            assert response.content_type == "text/event-stream"
            first = await response.content.readuntil(b"\n\n")
            assert b"transcript.text.delta" in first
            assert not news(told, TranscriptionCompleted)
            rest = await response.text()
    assert rest.endswith("data: [DONE]\n\n")


# ── who hears ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_models_that_are_not_there_or_do_not_hear(house: House) -> None:
    status, told = await ask(house, clip("german.wav"), model="whisper-large")
    assert (status, told["error"]["code"], told["error"]["param"]) == (404, "model_not_found", "model")
    assert "hf download Systran/faster-whisper-large-v3" in told["error"]["message"]
    status, told = await ask(house, clip("german.wav"), model="nonsense")
    assert (status, told["error"]["param"]) == (404, "model")
    status, told = await ask(house, clip("german.wav"), model="demo-chat")
    assert (status, told["error"]["param"]) == (400, "model")
    assert not house.services.supervisor.loaded()


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/v1/rerank"]
)
async def test_speech_models_do_nothing_else(house: House, path: str) -> None:
    messages = [{"role": "user", "content": "hello"}]
    document = {"model": "demo-whisper", "messages": messages, "prompt": "x", "input": "x", "content": "x"}
    async with house.post(path, document) as response:
        told = await response.json()
        assert (response.status, told["error"]["param"]) == (400, "model")


async def test_speech_models_are_shown_started_and_stopped(house: House) -> None:
    one = "/v1/models/demo-whisper"
    async with house.client.get(house.url + one) as response:
        told = await response.json()
    assert told["capabilities"] == ["transcription"]
    async with house.client.post(house.url + one + "/start?wait=true") as response:
        assert (response.status, (await response.json())["status"]) == (200, "loaded")
    async with house.client.get(house.url + one + "/info") as response:
        assert (await response.json())["format"] == "CTranslate2"
    process = worker(house)
    async with house.client.post(house.url + one + "/stop") as response:
        assert response.status == 200
    assert not process.is_running()


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


async def test_prompts_are_text(house: House) -> None:
    """Neither commands of the model in a prompt nor a prompt of any length changes what is done."""
    for fields in (
        {"prompt": "<|startoftranscript|><|de|><|translate|>"},
        {"prompt": "blue " * 3000, "hotwords": "red " * 3000},
    ):
        status, told = await ask(house, clip("colours.wav"), **fields)
        assert (status, told["language"]) == (200, "en")
        assert set(told["text"].split()) <= set(CLIPS["colours.wav"]["text"].split())


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
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with house.client.post(house.url + PATH, data=aiter(self), headers=headers) as response:
            return response.status, (await response.json())["error"]["param"]


async def test_a_file_that_is_too_large_is_refused_before_it_has_come(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=limited_to(1), server={"max_body_mb": 1}) as house:
        upload = Endless("")
        assert await upload.refused(house) == (413, "file")
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
        start = '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'
        answer = await house.request(f"{head}Content-Length: 1000\r\n\r\n{start}")
        assert answer.startswith(b"HTTP/1.1 408")


# ── many, and accidents ────────────────────────────────────────────────────────────────────────────────────────────


async def test_twenty_uploads_at_once(tmp_path: Path) -> None:
    async with open_house(tmp_path, audio={"slots": 2, "beam_size": 1}) as house:
        asked = [name for name in SPOKEN for _ in range(4)]
        answers = await asyncio.gather(*(ask(house, clip(name)) for name in asked))
        assert [(status, told["text"]) for status, told in answers] == [(200, CLIPS[name]["text"]) for name in asked]
        assert len({worker(house).pid}) == 1


async def test_a_short_clip_does_not_wait_for_the_end_of_a_long_one(tmp_path: Path) -> None:
    async with open_house(tmp_path, audio={"slots": 1}) as house:
        with house.services.bus.subscribe() as told:
            async with asyncio.TaskGroup() as group:
                long = group.create_task(ask(house, wav(repeated("colours.wav", 200))))
                await house.until(lambda: bool(news(told, TranscriptionProgress)))
                status, short = await ask(house, clip("german.wav"))
                assert (status, short["text"]) == (200, CLIPS["german.wav"]["text"])
                assert not long.done()
                long.cancel()


async def test_a_hang_up_ends_the_work_within_a_second(tmp_path: Path) -> None:
    async with open_house(tmp_path, audio={"slots": 1}) as house:
        said = wav(repeated("colours.wav", 800))
        with house.services.bus.subscribe() as told:
            async with house.client.post(house.url + PATH, data=form(said, stream="true")) as response:
                await response.content.readuntil(b"\n\n")
                response.close()
            await house.until(lambda: not house.leases(), 1)
            status, _ = await asyncio.wait_for(ask(house, clip("german.wav")), 2)  # in the only slot
            assert status == 200
            assert news(told, TranscriptionFailed)[0].cause == "The client hung up."
        process = worker(house)
        used = sum(process.cpu_times()[:2])
        await asyncio.sleep(0.05)
        assert sum(process.cpu_times()[:2]) - used < 0.05


async def test_a_hang_up_in_the_middle_of_the_upload_leaves_nothing(house: House, tmp_path: Path) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    start = '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + "a" * 300_000
    _, writer = await asyncio.open_connection(*house.address)
    writer.write(f"{head}Content-Length: 90000000\r\n\r\n{start}".encode())
    await house.until(lambda: any(file.stat().st_size for file in files_below(tmp_path / "uploads")))
    folder = next((tmp_path / "uploads").iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700
    writer.close()
    await house.until(lambda: not files_below(tmp_path / "uploads"))


async def test_a_worker_that_is_killed_costs_one_request(house: House) -> None:
    said = wav(repeated("colours.wav", 300))
    with house.services.bus.subscribe() as told:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(ask(house, said))
            await house.until(lambda: bool(news(told, TranscriptionProgress)))
            worker(house).kill()
            status, answer = await asked
        assert (status, answer["error"]["type"]) == (502, "server_error")
        assert "failed while answering" in news(told, TranscriptionFailed)[0].cause
    status, answer = await ask(house, clip("german.wav"))
    assert (status, answer["text"]) == (200, CLIPS["german.wav"]["text"])


async def test_a_worker_that_is_killed_ends_the_stream_with_an_error(house: House, client: openai.AsyncOpenAI) -> None:
    said = wav(repeated("colours.wav", 300))
    stream = await client.audio.transcriptions.create(model="demo-whisper", file=("a.wav", said), stream=True)

    async def listen() -> None:
        async for event in stream:
            assert event.type == "transcript.text.delta"
            worker(house).kill()

    with pytest.raises(openai.APIError, match="failed while answering"):
        await listen()


async def test_events(tmp_path: Path) -> None:
    async with open_house(tmp_path, audio={"text_in_events": True}) as house:
        with house.services.bus.subscribe() as told:
            await ask(house, clip("german.wav"))
            await ask(house, b"no sound")
            await ask(house, clip("german.wav"), "/v1/audio/translations")
            heard, translated = news(told, TranscriptionCompleted)
            (failed,) = news(told, TranscriptionFailed)
    assert (heard.model_id, heard.task, heard.language) == ("demo-whisper", "transcribe", "de")
    assert heard.duration == pytest.approx(CLIPS["german.wav"]["seconds"], abs=0.02)
    assert heard.text == CLIPS["german.wav"]["text"]
    assert 0 < heard.processing_seconds < 30
    assert (translated.task, translated.text) == ("translate", CLIPS["german.wav"]["translation"])
    assert "Invalid file format" in failed.cause


async def test_texts_are_not_told_unless_wanted(house: House) -> None:
    with house.services.bus.subscribe() as told:
        await ask(house, clip("german.wav"))
        assert news(told, TranscriptionCompleted)[0].text is None
