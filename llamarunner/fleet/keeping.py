"""The server's side of the keeper, the process that ends our children when we could not (see `workers.keeper`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from pathlib import Path

log = logging.getLogger("llamarunner.fleet")

PROGRAM = Path(__file__).parent.parent / "workers" / "keeper.py"
PAUSE_SECONDS = 1.0


class Keeping:
    """Keeps a keeper running; every child must carry `marker` in its environment."""

    def __init__(self) -> None:
        self._identity = f"{os.getpid()}:{secrets.token_hex(8)}"
        self.marker = {"LLAMARUNNER_SERVER": self._identity}

    async def run(self) -> None:
        """Run the keeper, and another should it end, until cancelled; then bid it goodbye."""
        command = (sys.executable, "-I", str(PROGRAM), self._identity)
        while True:
            try:
                await self._run_one(command)
                log.warning("the keeper ended unexpectedly; starting another")
            except OSError as error:
                log.error("the keeper cannot be started, trying again: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _run_one(self, command: tuple[str, ...]) -> None:
        keeper = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            await keeper.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, RuntimeError):  # it may be ending by itself; uvloop has its own word
                await keeper.communicate(b"goodbye")
            raise
