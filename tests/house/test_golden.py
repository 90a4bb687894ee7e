"""Golden transcripts: a request as it goes over the wire, and every byte of the answer but for times, ids and ports.

Each file of `tests/golden` holds a request, a line of `====`, and the answer, with line feeds for CR LF and streams
without the borders of their chunks. The model is
the misbehaving child, which is exact. Those of `tests/golden/library` change what is there, so they are asked one after
another, in the order of their numbers. `pytest tests/house/test_golden.py --update-golden` writes the answers anew;
read the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from llamarunner.config import bundled
from tests.house.conftest import OpenHouse, with_fakes
from tests.library.places import Registry, digest_of, model_bytes, served

FOLDER = Path(__file__).parents[1] / "golden"
CUT = "\n====\n"
OF_DOOR = {"Ollama": "ollama-", "LM Studio": "lmstudio-"}
CHANGING = (
    (r"Date: [^\n]+", "Date: DATE"),
    (r'"created":\d+', '"created":0'),
    (r'"created_at":"[^"]+"', '"created_at":"TIME"'),
    (r'"timestamp":"[^"]+","version":"[^"]+","uptime":\d+', '"timestamp":"TIME","version":"0","uptime":0'),
    (r"Content-Length: 8[4-6]\n", "Content-Length: 84\n"),  # of the above, by the digits of its uptime
    (r"Content-Length: 9\d\n", "Content-Length: 90\n"),
    (r'(?s)Content-Length: \d+(?=.*"(?:total_duration|expires_at)")', "Content-Length: 0"),
    (r'"(total|load)_duration":\d+', r'"\1_duration":0'),
    (r'"load_time_seconds":[0-9.]+', '"load_time_seconds":0'),
    (r'(?s)Content-Length: \d+(?=.*"load_time_seconds")', "Content-Length: 0"),
    (r'"(modified_at|expires_at)":"[^"]+"', r'"\1":"TIME"'),
    (r'"runtime":{"name":"llama\.cpp-[^"]+","version":[^,]+', '"runtime":{"name":"llama.cpp","version":"0"'),
    (r'(?s)Content-Length: \d+(?=.*"runtime":)', "Content-Length: 0"),
    (r'"(created|completed)_at":\d+', r'"\1_at":0'),
    (r"\b(resp|rs|msg|fc|call|item)_[0-9a-f]{24,48}\b", r"\1_ID"),
    (r'"tokens_per_second":[\d.e-]+,("time_to_first_token_seconds"):[\d.e-]+', r'"tokens_per_second":0,\1:0'),
    (r'(?s)Content-Length: \d+(?=.*"time_to_first_token_seconds")', "Content-Length: 0"),
    (r'"digest":"[0-9a-f]{64}"', '"digest":"DIGEST"'),
    (r'"size":\d+,"digest"(?=.*"expires_at")', '"size":0,"digest"'),
)


PROGRESS = re.compile(r'(?:\{"status":"pulling (\w+)",.*\n)(?=\{"status":"pulling \1")')  # all but the last of a file
DIGESTS = ((r"sha256:(?!0{64})[0-9a-f]{64}", "sha256:DIGEST"), (r"pulling [0-9a-f]{12}", "pulling DIGEST"))


@pytest.mark.parametrize("door", ["Ollama", "LM Studio"])
async def test_every_answer_is_as_recorded(
    open_house: OpenHouse, tmp_path: Path, fake_llama: Path, door: str, request: pytest.FixtureRequest
) -> None:
    files = [file for file in FOLDER.glob("*.http") if is_for(file, door)]
    async with open_house(with_fakes(tmp_path, fake_llama, {"a": []})) as house:
        await check(house.urls[door], files, request.config.getoption("--update-golden"))


async def test_every_answer_about_the_library_is_as_recorded(
    open_house: OpenHouse, tmp_path: Path, fake_llama: Path, request: pytest.FixtureRequest
) -> None:
    registry, weights = Registry(), model_bytes(tmp_path)
    settings = with_fakes(tmp_path, fake_llama, {"a": [], "dead": ["--fake-exit", "3", "--fake-print", "no luck"]})
    await asyncio.to_thread(shutil.copy, bundled("models") / "demo-embed.gguf", tmp_path / "models" / "e.gguf")
    async with served(registry):
        registry.offer("library/mario", ("model", weights))
        registry.offer("library/liar", ("model", b"one thing"))
        registry.files[f"/v2/library/liar/blobs/{digest_of(b'one thing')}"] = b"other one"
        settings["catalog"]["registry"] = registry.url
        async with open_house(settings) as house:
            update = request.config.getoption("--update-golden")
            await check(house.urls["Ollama"], FOLDER.glob("library/*.http"), update, {"WEIGHTS": digest_of(weights)})


async def check(url: str, files: Iterable[Path], update: bool, places: dict[str, str] | None = None) -> None:
    """Ask what the files ask, in the order of their names, and compare; `places` are words that stand for others."""
    different = []
    for file in sorted(files):
        asked, _, recorded = file.read_text().partition(CUT)
        spoken = asked.rstrip("\n")
        for word, meaning in (places or {}).items():
            spoken = spoken.replace(word, meaning)
        answer = normal(await exchange(url, spoken))
        if update:
            file.write_text(asked.rstrip("\n") + "\n" + CUT + answer)
        elif answer != recorded:
            different.append(f"--- {file.name}\n{recorded}\n+++ now\n{answer}")
    assert not different, "\n".join(different)


def is_for(file: Path, door: str) -> bool:
    """Tell whether a transcript is of a door: its name begins with one, or it is of both and this one has no own."""
    if file.stem.startswith(("ollama-", "lmstudio-")):
        return file.stem.startswith(OF_DOOR[door])
    return not file.with_name(OF_DOOR[door] + file.name).exists()


async def exchange(url: str, asked: str) -> str:
    """Send a request as it is written, and return all that comes back until the connection closes."""
    head, _, body = asked.partition("\n\n")
    lines = [*head.split("\n"), f"Host: {url.removeprefix('http://')}", "Connection: close", "X-Request-ID: golden"]
    if body:
        lines.append(f"Content-Length: {len(body.encode())}")
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
    try:
        return readable(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()
        await writer.wait_closed()


def readable(answer: bytes) -> str:
    """The answer as text; where it is chunked, the chunks' borders (which vary) are left out and its end is told."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        whole = body.endswith(b"0\r\n\r\n")
        body = b"".join(re.split(rb"(?:^|\r\n)[0-9a-f]+\r\n", body)).rstrip(b"\r\n")
        body += b"\n\n(the end)\n" if whole else b"\n\n(cut off)\n"
    return f"{head.decode()}\n\n{body.decode()}".replace("\r\n", "\n")


def normal(answer: str) -> str:
    answer = PROGRESS.sub("", answer)
    for pattern, constant in CHANGING + DIGESTS:
        answer = re.sub(pattern, constant, answer)
    return answer
