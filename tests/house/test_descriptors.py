"""F-31: a server that is let open but few files, and more clients than that; on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from contextlib import AsyncExitStack

import aiohttp
import pytest
from yarl import URL

from tests.house.conftest import OpenHouse

PLAIN = "import sys; sys.modules['uvloop'] = None; from llamarunner.cli import main; main()"
LOOPS = {"uvloop": (sys.executable, "-m", "llamarunner"), "asyncio": (sys.executable, "-c", PLAIN)}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("files", [200, 64])
async def test_f31_a_server_without_descriptors_is_quiet_and_recovers(
    open_house: OpenHouse, loop: str, files: int
) -> None:
    """With 200 the cap refuses most of them; with 64 the descriptors run out before."""
    limited = ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *LOOPS[loop])
    async with open_house({"supervisor": {"memory_check": False}}, program=limited) as house:
        url = URL(house.url)
        async with AsyncExitStack() as stack:
            for _ in range(500):
                _, writer = await asyncio.open_connection(url.host, url.port)
                stack.callback(writer.close)
        async with aiohttp.ClientSession() as http, asyncio.timeout(15):
            await healthy(http, house.url)
            chat = {"model": "demo-chat", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}
            async with http.post(house.url + "/v1/chat/completions", json=chat) as response:
                assert response.status == 200, await response.text()
        assert len(house.log().splitlines()) < 100, house.log()
        assert "Traceback" not in house.log()


async def healthy(http: aiohttp.ClientSession, url: str) -> None:
    """Wait until it answers: what the clients left behind takes a moment to go."""
    while True:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with http.get(url + "/health") as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.05)
