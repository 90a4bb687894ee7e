"""Uploads and the life of the whole server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.conftest import eventually
from tests.house.conftest import start

SPEECH = Path(__file__).parents[1] / "fixtures" / "speech"
HEAD = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
PART = '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_what_a_killed_server_leaves_of_an_upload_is_gone_with_the_next(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    settings = {"audio": {"upload_folder": str(uploads)}}
    house = await start(tmp_path, settings)
    _, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rsplit(":", 1)[1]))
    writer.write((HEAD + "Content-Length: 90000000\r\n\r\n" + PART + "a" * 200_000).encode())
    await eventually(lambda: any(file.stat().st_size for file in files_below(uploads)))
    house.process.kill()
    await house.process.wait()
    writer.close()
    assert files_below(uploads)
    house = await start(tmp_path, settings)
    assert not list(uploads.iterdir())
    form = aiohttp.FormData()
    form.add_field("file", (SPEECH / "german.wav").read_bytes(), filename="german.wav")
    url = f"{house.url}/v1/audio/transcriptions"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as response:
        assert (response.status, (await response.json())["text"]) == (200, "drei sechs vier")
    house.process.terminate()
    assert await asyncio.wait_for(house.process.wait(), 20) == 0
    assert not list(uploads.iterdir())
