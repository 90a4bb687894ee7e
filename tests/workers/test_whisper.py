"""The speech worker as a program of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from llamarunner.config import bundled
from llamarunner.workers.whisper_model import Model

MODEL = bundled("models") / "demo-whisper"
SPEECH = Path(__file__).parent.parent / "fixtures" / "speech"
KEY = {"Authorization": "Bearer secret"}
ENV = {**os.environ, "WHISPER_API_KEY": "secret", "HF_HUB_OFFLINE": "1"}


def command(folder: Path, *more: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "llamarunner.workers.whisper", "--model", str(folder), "--threads", "1", *more)


@dataclass
class Worker:
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    url: str

    async def tell(self, name: str, **asked: Any) -> list[dict[str, Any]]:
        document = {"path": str(SPEECH / name), "vad": {}, **asked}
        async with self.http.post(self.url + "/transcribe", json=document, headers=KEY) as response:
            assert response.status == 200
            return [json.loads(line) async for line in response.content if line.strip()]


@asynccontextmanager
async def running(folder: Path = MODEL, *more: str, **env: str) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        *command(folder, *more), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=ENV | env
    )
    try:
        assert process.stdout
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        assert (ready["event"], ready["pid"]) == ("ready", process.pid)
        async with aiohttp.ClientSession() as http:
            yield Worker(process, http, f"http://127.0.0.1:{ready['port']}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def kept(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def test_segments_then_the_end() -> None:
    async with running() as worker:
        *segments, progress, done = await worker.tell("long.wav", words=True)
        assert {line["type"] for line in segments} == {"segment"}
        assert [line["id"] for line in segments] == list(range(len(segments)))
        assert progress == {"type": "progress", "seconds": done["duration"], "duration": 8.274563}
        assert done == {"type": "done", "language": "en", "duration": 8.275}
        for line in segments:
            assert 0 <= line["start"] <= line["words"][0]["start"] <= line["words"][-1]["end"] <= 8.275


async def test_nobody_without_the_key() -> None:
    async with running() as worker:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            for path in ("/health", "/props", "/v1/models"):
                async with worker.http.get(worker.url + path, headers=headers) as response:
                    assert response.status == 401
            async with worker.http.post(worker.url + "/transcribe", json={}, headers=headers) as response:
                assert response.status == 401
        async with worker.http.get(worker.url + "/props", headers=KEY) as response:
            assert (await response.json())["total_slots"] >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    async with running() as worker:
        worker.process.send_signal(number)
        assert await asyncio.wait_for(worker.process.wait(), 5) == 0


async def test_what_cannot_be_loaded_is_told_at_the_start(tmp_path: Path) -> None:
    """Also where faster-whisper itself would find out at the first request."""

    def broken(name: str, content: bytes | None) -> Path:
        folder = tmp_path / f"without-{name}"
        shutil.copytree(MODEL, folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        return folder

    config = json.loads((MODEL / "config.json").read_text())
    folders = [
        broken("model.bin", (MODEL / "model.bin").read_bytes()[:100_000]),
        broken("config.json", json.dumps(config | {"lang_ids": []}).encode()),
        broken("preprocessor_config.json", b'{"feature_size": 128}'),
        broken("tokenizer.json", None),
    ]
    for folder in folders:
        process = await asyncio.create_subprocess_exec(
            *command(folder), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=ENV
        )
        said, complaint = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, said) == (1, b""), folder.name
        assert b"could not be loaded" in complaint


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are told by Linux alone")
async def test_it_can_write_no_file_and_leaves_no_image_of_its_memory() -> None:
    async with running() as worker:
        process = psutil.Process(worker.process.pid)
        for limit in (psutil.RLIMIT_CORE, psutil.RLIMIT_FSIZE):
            assert process.rlimit(limit) == (0, 0)
        assert (await worker.tell("german.wav"))[0]["text"] == " drei sechs vier"


@pytest.mark.skipif(sys.platform == "win32", reason="its home is not told by HOME")
async def test_nothing_is_kept_at_home_to_be_told_to_others(tmp_path: Path) -> None:
    async with running(HOME=str(tmp_path)) as worker:
        assert (await worker.tell("german.wav"))[0]["text"] == " drei sechs vier"
    assert not kept(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="its home is not told by HOME")
async def test_nor_by_the_bench(tmp_path: Path) -> None:
    program = (sys.executable, "-m", "llamarunner.bench.hear", str(MODEL), "sequential", "1")
    process = await asyncio.create_subprocess_exec(
        *program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=ENV | {"HOME": str(tmp_path)},
    )
    told, _ = await asyncio.wait_for(process.communicate(f"{SPEECH / 'german.wav'}\n".encode()), 20)
    assert json.loads(told.splitlines()[-1])["words"] == 3
    assert not kept(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="a step is stuck in a named pipe, which it does not have")
async def test_stuck_in_a_step_it_says_that_it_works_and_ends_at_once_when_told_to(tmp_path: Path) -> None:
    async def status() -> int:
        async with worker.http.get(worker.url + "/idle", headers=KEY) as response:
            return response.status

    os.mkfifo(pipe := tmp_path / "recording")
    async with running() as worker:
        assert await status() == 200
        await worker.tell("german.wav")
        assert await status() == 200
        async with worker.http.post(worker.url + "/transcribe", json={"path": str(pipe)}, headers=KEY) as response:
            assert await response.content.readline() == b"\n"
            assert await status() == 503
        assert await status() == 503, "nobody waits any more, and still it works"
        worker.process.terminate()
        assert await asyncio.wait_for(worker.process.wait(), 5) == 0


async def test_a_file_that_cannot_be_heard_is_told_as_a_line() -> None:
    async with running() as worker:
        (line,) = await worker.tell("fixtures.json")
        assert (line["type"], line["code"], line["param"]) == ("error", "invalid_audio", "file")
        (line,) = await worker.tell("nowhere.wav")
        assert (line["type"], line["code"]) == ("error", "server_error")
        assert (await worker.tell("german.wav"))[0]["text"] == " drei sechs vier"


async def test_a_temperature_that_is_all_but_zero_is_zero() -> None:
    async with running() as worker:
        plain = await worker.tell("german.wav")
        for temperature in (1e-45, 1e-38, 1e-5):
            assert await worker.tell("german.wav", temperature=temperature) == plain


@pytest.mark.parametrize("depth", [1, 2, 1000])
def test_no_command_is_put_together_of_what_remains_of_others(depth: int) -> None:
    said = "red<|en|>" + "<" * depth + "<|x|>" + "|de|>" * depth + "blue"
    left = Model.plain(said)
    assert left
    assert "<|" not in left
    assert left[:3] + left[-4:] == "redblue"
