"""How a door's connections are set up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from doors import open_house

from llamarunner.server import listener


def test_no_door_opens_without_the_compiled_parser() -> None:
    """The one written in Python has been open to smuggling (CVE-2026-111750)."""
    code = "from llamarunner.server.connection import check_parser; check_parser()"
    ended = {}
    for parser in ("", "1"):
        env = {**os.environ, "AIOHTTP_NO_EXTENSIONS": parser}
        ended[parser] = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
        )
    assert ended[""].returncode == 0, ended[""].stderr
    assert "compiled HTTP parser" in ended["1"].stderr


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        listener.bind("127.0.0.1", other.getsockname()[1])


def test_all_addresses_of_a_host_share_one_port() -> None:
    bound = listener.bind("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in bound}) == 1
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 2**16 for sock in bound)
    finally:
        for sock in bound:
            sock.close()


async def test_one_connection_serves_many_requests(tmp_path: Path) -> None:
    """Also after refusals, and whatever framing the requests had."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    plain = f"{head}Content-Length: 20000\r\n\r\n" + "x" * 20_000
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    last = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with open_house(tmp_path, models={}) as house:
        answer = await house.request(plain + plain + last)
        assert answer.count(b"HTTP/1.1 400 ") == 2
        assert answer.count(b"HTTP/1.1 200 ") == 1
        answer = await house.request(plain + chunked)
        assert answer.count(b"HTTP/1.1 400 ") == 1
        assert answer.count(b"HTTP/1.1 404 ") == 1
