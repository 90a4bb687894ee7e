"""The server's side of the keeper, the process that ends our children when we could not (see `workers.keeper`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import threading
from pathlib import Path

log = logging.getLogger("llamarunner.fleet")

PROGRAM = Path(__file__).parent.parent / "workers" / "keeper.py"
PAUSE_SECONDS = 1.0
IDENTITY = f"{os.getpid()}:{secrets.token_hex(8)}"
MARKER = {"LLAMARUNNER_SERVER": IDENTITY}  # in the environment of every process that we start

ENDING = threading.Event()  # the keeper was told goodbye, and kills what we started


async def keep() -> None:
    """Run the keeper, and another should it end, until cancelled; then bid it goodbye."""
    ENDING.clear()
    while True:
        try:
            await _run_one()
            log.warning("the keeper ended unexpectedly; starting another")
        except OSError as error:
            log.error("the keeper cannot be started, trying again: %s", error)
        await asyncio.sleep(PAUSE_SECONDS)


async def _run_one() -> None:
    command = (sys.executable, "-I", str(PROGRAM), IDENTITY)
    keeper = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        await keeper.wait()
    except asyncio.CancelledError:
        ENDING.set()
        with contextlib.suppress(OSError, RuntimeError):  # it may be ending by itself; uvloop has its own word
            await keeper.communicate(b"goodbye")
        raise
