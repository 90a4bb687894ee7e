"""Speech to text through the doors, with the real worker and the demo model."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import openai
import psutil
import pytest
from doors import House
from hearing import (
    CLIPS,
    PATH,
    RATE,
    SPEECH,
    ask,
    clip,
    files_below,
    form,
    open_house,
    repeated,
    wav,
)

from llamarunner.events import (
    Event,
    ModelStarted,
    Subscription,
    TranscriptionCompleted,
    TranscriptionFailed,
    TranscriptionProgress,
)
from llamarunner.fleet.launch import Task
from tests.conftest import eventually

SPOKEN = [name for name, told in CLIPS.items() if told["text"]]
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
    with pytest.warns(DeprecationWarning, match="deprecated"):
        told = await client.audio.translations.create(model="whisper-1", file=SPEECH / "german.wav")
    assert told.text == CLIPS["german.wav"]["translation"]
    assert (told.model_extra or {})["language"] == "en"


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


@pytest.mark.parametrize("audio", [{}, {"vad": False}, {"batch_size": 4, "beam_size": 1}])
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
    assert starts[-1] == pytest.approx(told["duration"] - 2.54, abs=1)


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


@pytest.mark.parametrize(("field", "value"), [("ctx_size", 4096), ("n_gpu_layers", "all"), ("device", ["CUDA0"])])
async def test_settings_of_llama_cpp_are_refused_for_a_speech_model(house: House, field: str, value: Any) -> None:
    start = house.url + "/v1/models/demo-whisper/start"
    async with house.client.post(start, json={"ttl_seconds": 5, field: value}) as response:
        told = await response.json()
        assert (response.status, told["error"]["param"]) == (400, field)
        assert "speech" in told["error"]["message"]
    async with house.client.get(house.url + "/v1/models/demo-whisper/status") as response:
        assert (await response.json())["status"] == "unloaded"


async def test_a_speech_model_is_started_for_as_long_as_is_wished(house: House) -> None:
    one = house.url + "/v1/models/demo-whisper"
    async with house.client.post(one + "/start?wait=true", json={"ttl_seconds": 0}) as response:
        assert response.status == 200
    await eventually(lambda: not house.services.supervisor.loaded())


async def test_a_playlist_is_no_recording(house: House) -> None:
    """Nor is the address asked that it names."""
    with socket.create_server(("127.0.0.1", 0)) as lure:
        lure.setblocking(False)
        url = f"http://127.0.0.1:{lure.getsockname()[1]}/a.ts"
        for text in (f"#EXTM3U\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{url}'\n"):
            async with house.client.post(house.url + PATH, data=form(text.encode())) as response:
                told = await response.json()
                assert (response.status, told["error"]["param"]) == (400, "file")
        with pytest.raises(BlockingIOError):
            lure.accept()


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
        said = wav(repeated("colours.wav", 200))
        with house.services.bus.subscribe() as told:
            async with house.client.post(house.url + PATH, data=form(said, stream="true")) as response:
                for _ in range(14):  # the first slice has eleven
                    await response.content.readuntil(b"\n\n")
                response.close()
            left = time.monotonic()
            await house.until(lambda: not house.leases(), 1)
            assert news(told, TranscriptionFailed)[0].cause == "The client hung up."
        process = worker(house)
        used, idle = -1.0, 0
        while idle < 4:
            await asyncio.sleep(0.04)
            now = sum(process.cpu_times()[:2])
            used, idle = now, idle + 1 if now - used < 0.015 else 0
        assert time.monotonic() - left < 1.2
        assert (await ask(house, clip("german.wav")))[0] == 200  # in the only slot


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

    process = worker(house)

    async def listen() -> None:
        async for event in stream:
            assert event.type == "transcript.text.delta"
            with contextlib.suppress(psutil.NoSuchProcess):  # more may be on the way when it is gone
                process.kill()

    with pytest.raises(openai.APIError, match="failed while answering"):
        await listen()


async def test_events(tmp_path: Path) -> None:
    async with open_house(tmp_path, audio={"text_in_events": True}) as house:
        with house.services.bus.subscribe() as told:
            began = time.monotonic()
            await ask(house, clip("german.wav"))
            took = time.monotonic() - began
            await ask(house, b"no sound")
            await ask(house, clip("german.wav"), "/v1/audio/translations")
            heard, translated = news(told, TranscriptionCompleted)
            (failed,) = news(told, TranscriptionFailed)
            (load,) = news(told, ModelStarted)
    assert (heard.model_id, heard.task, heard.language) == ("demo-whisper", "transcribe", "de")
    assert heard.duration == pytest.approx(CLIPS["german.wav"]["seconds"], abs=0.02)
    assert heard.text == CLIPS["german.wav"]["text"]
    assert 0 < heard.processing_seconds < 30
    assert heard.processing_seconds + load.seconds < took  # it is told apart
    assert (translated.task, translated.text) == ("translate", CLIPS["german.wav"]["translation"])
    assert "Invalid file format" in failed.cause


async def test_texts_are_not_told_unless_wanted(house: House) -> None:
    with house.services.bus.subscribe() as told:
        await ask(house, clip("german.wav"))
        assert news(told, TranscriptionCompleted)[0].text is None
