"""Figures about processes and the machine, with real processes and a real child program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from doors import open_house

from llamarunner.fleet.launch import Endpoint
from llamarunner.server.client import Client
from llamarunner.server.figures import Figures, Granted, Remembered, _read

GRANDPARENT = """
import subprocess, sys, time
block = bytearray(b"x") * (20 << 20)
if sys.argv[1:]:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print("ready", flush=True)
time.sleep(600)
"""


async def test_memory_is_that_of_the_whole_tree() -> None:
    command = [sys.executable, "-c", GRANDPARENT, GRANDPARENT]
    async with Client() as client:
        figures = Figures(client)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as root:  # noqa: ASYNC220
            assert root.stdout
            for _ in range(2):
                assert await asyncio.to_thread(root.stdout.readline) == b"ready\n"
            family = [psutil.Process(root.pid), *psutil.Process(root.pid).children()]
            assert len(family) == 2
            wanted = sum(process.memory_info().rss for process in family)
            assert abs(await figures.tree_bytes([root.pid]) / wanted - 1) < 0.05
            for process in reversed(family):
                process.kill()
        assert await Figures(client).tree_bytes([root.pid]) == 0


async def test_one_measurement_serves_all_who_ask_within_a_second() -> None:
    threads = []

    def measure() -> int:
        threads.append(threading.current_thread())
        time.sleep(0.02)
        return len(threads)

    remembered = Remembered(measure)
    assert set(await asyncio.gather(*(remembered.get() for _ in range(100)))) == {1}
    assert threads != [threading.main_thread()], "the event loop must not wait for it"
    remembered._until = 0
    assert await remembered.get() == 2


async def test_failed_measurement_is_tried_again() -> None:
    outcomes = iter([OSError("no files left"), 7])

    def measure() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    remembered = Remembered(measure)
    with pytest.raises(OSError, match="no files left"):
        await remembered.get()
    assert await remembered.get() == 7


async def test_what_a_child_was_granted_is_asked_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        instance = await house.services.supervisor.start(house.services.catalog.find("chat"))
        assert instance.endpoint
        figures = house.services.figures
        assert await figures.granted(instance.endpoint) == Granted(4, 4096)
        await house.services.supervisor.stop(instance.entry)
        assert await figures.granted(instance.endpoint) == Granted(4, 4096)


async def test_a_child_that_is_gone_was_granted_nothing() -> None:
    async with Client() as client:
        assert await Figures(client).granted(Endpoint("http://127.0.0.1:1", "key")) == Granted()


@pytest.mark.parametrize(
    ("props", "wanted"),
    [
        ({"total_slots": 2, "default_generation_settings": {"n_ctx": 512}}, Granted(2, 512)),
        ({"total_slots": "2", "default_generation_settings": []}, Granted()),
        ({"total_slots": True, "default_generation_settings": {"n_ctx": -1}}, Granted()),
        ({}, None),
        ([1], None),
        (None, None),
    ],
)
def test_properties_are_read_as_far_as_they_are_known(props: object, wanted: Granted | None) -> None:
    assert _read(props) == wanted
