"""The verbs as people run them: as processes, and on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.house.conftest import House, environment

PROGRAM = (sys.executable, "-m", "llamarunner")
SIZE = struct.pack("HHHH", 40, 120, 0, 0)  # lines and columns
CTRL_C, CTRL_D = "\x03", "\x04"


@dataclass(frozen=True)
class Ran:
    """What a process said, and how it ended."""

    code: int
    out: str
    err: str


def surroundings(house: House) -> dict[str, str]:
    return environment(house.folder) | {"LLAMARUNNER_HOST": house.urls["Ollama"]}


async def run(folder: Path, *words: str, env: Mapping[str, str], stdin: str | bytes | None = None) -> Ran:
    """Run a verb in a folder, with something piped in or nothing."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *words,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=folder,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode() if isinstance(stdin, str) else stdin), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def verb(house: House, *words: str, stdin: str | bytes | None = None) -> Ran:
    """Run a verb that finds the house by the environment."""
    return await run(house.folder, *words, env=surroundings(house), stdin=stdin)


@dataclass
class Terminal:
    """A process on a terminal."""

    process: asyncio.subprocess.Process
    master: int
    screen: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self) -> None:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # so Linux says that nobody is left on the other side
            asyncio.get_running_loop().remove_reader(self.master)
            return
        self.screen += data.decode()
        self._news.set()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def until(self, text: str) -> str:
        """Wait for a text on the screen, and take all up to it away."""
        try:
            async with asyncio.timeout(30):
                while text not in self.screen:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} does not come: {self.screen!r}") from None
        seen, _, self.screen = self.screen.partition(text)
        return seen

    async def end(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 20)


@asynccontextmanager
async def terminal(folder: Path, *words: str, env: Mapping[str, str]) -> AsyncIterator[Terminal]:
    """Run a verb on a terminal of its own, in a folder."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, SIZE)
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *words),
        **dict.fromkeys(("stdin", "stdout", "stderr"), slave),
        env={**env, "TERM": "xterm", "INPUTRC": "/dev/null"},
        cwd=folder,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so Ctrl-C reaches it
    )
    os.close(slave)
    opened = Terminal(process, master)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, opened.hear)
    try:
        yield opened
    finally:
        loop.remove_reader(master)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(master)
