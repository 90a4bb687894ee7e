"""The port where LM Studio's clients look when nobody tells them an address."""

from __future__ import annotations

import socket

import pytest
from lmstudio import AsyncClient

from llamarunner.app import PortTaken, _bound
from llamarunner.config import LMStudioDoor
from tests.house.conftest import OpenHouse


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_one_more_port_serves_the_same(open_house: OpenHouse) -> None:
    port = free_port()
    doors = {"ollama": {"port": 0}, "lmstudio": {"port": 0, "sdk_port": port}}
    async with open_house({"proxies": doors}) as house:
        assert house.url != f"http://127.0.0.1:{port}"
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            assert len(await client.list_downloaded_models()) == 3


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"), _bound(LMStudioDoor(port=0, sdk_port=port)):
            pass
