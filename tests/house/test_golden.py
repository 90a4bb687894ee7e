"""Golden transcripts: a request as it goes over the wire, and every byte of the answer but for times, ids and ports.

Each file of `tests/golden` holds a request, a line of `====`, and the answer, with line feeds for CR LF and streams
without the borders of their chunks. The model is
the misbehaving child, which is exact. `pytest tests/house/test_golden.py --update-golden` writes the answers anew;
read the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.house.conftest import OpenHouse, with_fakes

FOLDER = Path(__file__).parents[1] / "golden"
CUT = "\n====\n"
OF_DOOR = {"Ollama": "ollama-", "LM Studio": "lmstudio-"}
CHANGING = (
    (r"Date: [^\n]+", "Date: DATE"),
    (r'"created":\d+', '"created":0'),
    (r'"created_at":"[^"]+"', '"created_at":"TIME"'),
    (r'"timestamp":"[^"]+","version":"[^"]+","uptime":\d+', '"timestamp":"TIME","version":"0","uptime":0'),
    (r"Content-Length: 9\d\n", "Content-Length: 90\n"),  # of the above
    (r'(?s)Content-Length: \d+(?=.*"(?:total_duration|expires_at)")', "Content-Length: 0"),
    (r'"(total|load)_duration":\d+', r'"\1_duration":0'),
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


@pytest.mark.parametrize("door", ["Ollama", "LM Studio"])
async def test_every_answer_is_as_recorded(
    open_house: OpenHouse, tmp_path: Path, fake_llama: Path, door: str, request: pytest.FixtureRequest
) -> None:
    update = request.config.getoption("--update-golden")
    different = []
    async with open_house(with_fakes(tmp_path, fake_llama, {"a": []})) as house:
        for file in sorted(FOLDER.glob("*.http")):
            if not is_for(file, door):
                continue
            asked, _, recorded = file.read_text().partition(CUT)
            answer = normal(await exchange(house.urls[door], asked.rstrip("\n")))
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
    for pattern, constant in CHANGING:
        answer = re.sub(pattern, constant, answer)
    return answer
