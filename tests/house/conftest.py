"""The whole program as a process of its own, as people run it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import UNLIMITED_DOORS, Journal, fake_settings
from tests.house import javascript

# What is listed while a person has no models of their own.
DEMO_MODELS = ["demo-chat", "demo-embed", "demo-vision", "demo-whisper"]


@dataclass
class House:
    """A running server."""

    process: asyncio.subprocess.Process
    folder: Path
    greeting: list[str] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)  # "Ollama", "LM Studio", "Wrapper" → base URL

    @property
    def url(self) -> str:
        return self.urls["LM Studio"]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def journal(self, name: str) -> Journal:
        return Journal(self.folder / "models" / f"{name}.journal")

    def children(self) -> list[psutil.Process]:
        """Every process below the server."""
        return psutil.Process(self.process.pid).children(recursive=True)


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    """Run `llamarunner serve` with some settings and options until the end of the block; both doors are on free ports.

    They have no limits, unless the settings say how the doors are.
    """

    @asynccontextmanager
    async def open_house(settings: dict[str, Any] | None = None, *options: str, **how: Any) -> AsyncIterator[House]:
        house = await start(tmp_path, settings or {}, *options, **how)
        try:
            yield house
        finally:
            if house.process.returncode is None:
                house.process.terminate()
            await asyncio.wait_for(house.process.wait(), 20)

    return open_house


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """The folder of the programs in JavaScript, with their packages installed."""
    javascript.install()
    return javascript.FOLDER


async def start(
    folder: Path,
    settings: dict[str, Any],
    *options: str,
    program: Sequence[str] = (sys.executable, "-m", "llamarunner"),
) -> House:
    """Start a server and read its greeting; fails with its log if it ends before."""
    config = folder / "settings.json"
    config.write_text(json.dumps({"proxies": UNLIMITED_DOORS, **settings}))
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(*program, "serve", "--config", str(config), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(folder),
        )
    house = House(process, folder)
    assert process.stdout
    async with asyncio.timeout(20):
        while line := (await process.stdout.readline()).decode():
            house.greeting.append(line.rstrip())
            if match := re.match(r"  (Ollama|LM Studio|Wrapper) +(http://\S+)", line):
                house.urls[match[1]] = match[2]
            if line.startswith("  Try"):
                return house
    raise AssertionError(f"no greeting: {house.greeting}\n{house.log()}")


def environment(folder: Path) -> dict[str, str]:
    """Our environment with an empty home, so that nobody's models or settings play a part."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLAMARUNNER", "LMSTUDIO", "OLLAMA", "HF_", "XDG"))
    }
    return {**kept, "HOME": str(folder / "home")}


def with_fakes(folder: Path, program: Path, models: dict[str, list[str]], **sections: Any) -> dict[str, Any]:
    """The settings of a server whose models are run by the fake."""
    settings = fake_settings(folder / "models", program, models, **sections)
    return settings.model_dump(mode="json", exclude_unset=True)
