"""What all tests share: children that misbehave on request, and a fleet of them under the real supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

from llamarunner import app
from llamarunner.catalog import Catalog, ModelEntry
from llamarunner.config import NO_LIMITS, Settings, bundled
from llamarunner.events import Bus, Event, Subscription
from llamarunner.fleet.launcher import Launcher
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.server.client import Client

# A busy machine is slow, which says nothing about the code.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# Who runs the suite in the background of a script starts it deaf to Ctrl-C, and so all programs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

PROGRAMS = Path(__file__).parent / "programs"
UNLIMITED_DOORS = {name: {"port": 0, "rate_limits": NO_LIMITS.model_dump()} for name in ("ollama", "lmstudio")}
DEMO_CHAT = bundled("models") / "demo-chat.gguf"


@pytest.fixture(autouse=True)
def no_orphans() -> Any:
    """No test leaves a process behind."""
    yield
    left = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(left, timeout=3)
    for process in alive:
        process.kill()
    assert not alive, f"left behind: {alive}"


@pytest.fixture
def fake_llama(tmp_path: Path) -> Path:
    """An executable that is llama-server as far as anyone can tell, and misbehaves on request."""
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -E "{PROGRAMS / "fake_llama.py"}" "$@"\n')
    program.chmod(0o755)
    return program


@dataclass
class Journal:
    """What one fake child wrote down."""

    path: Path

    def facts(self, what: str) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_text().rpartition("\n")  # the last line may still be being written
        facts = [json.loads(line) for line in whole.splitlines()]
        return [fact for fact in facts if fact["what"] == what]

    async def wait_for(self, what: str, count: int = 1, seconds: float = 10) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.facts(what)) >= count, seconds)
        return self.facts(what)


@dataclass
class Fleet:
    """A real supervisor over fake children."""

    supervisor: Supervisor
    catalog: Catalog
    folder: Path
    news: Subscription

    def entry(self, name: str) -> ModelEntry:
        return self.catalog.find(name)

    def journal(self, name: str) -> Journal:
        return Journal(self.folder / f"{name}.journal")

    def events(self) -> list[Event]:
        """What has been published since the last call."""
        seen = []
        while not self.news._queue.empty():
            seen.append(self.news._queue.get_nowait())
        return seen


MakeFleet = Callable[..., AbstractAsyncContextManager[Fleet]]


def fake_settings(folder: Path, program: Path, models: dict[str, list[str]], **sections: Any) -> Settings:
    """Settings under which each named model is run by the fake with its own switches."""
    folder.mkdir(exist_ok=True)
    for name in models:
        shutil.copy(DEMO_CHAT, folder / f"{name}.gguf")
    journals = {name: ["--fake-journal", str(folder / f"{name}.journal")] for name in models}
    nowhere = dict.fromkeys(("ollama", "lmstudio", "huggingface", "llama_cpp"), False)
    return Settings.model_validate(
        {
            "proxies": UNLIMITED_DOORS,
            "catalog": {
                "folders": [str(folder)],
                "library": str(folder.parent / "library"),
                "discover": nowhere,
                "demo_models": "hide",
            },
            "runtime": {"kind": "llama-server", "binary": str(program)},
            "models": {name: {"extra_args": journals[name] + switches} for name, switches in models.items()},
            **sections,
        }
    )


@pytest.fixture
def make_fleet(tmp_path: Path, fake_llama: Path) -> MakeFleet:
    """Open a supervisor: `make_fleet({"a": ["--fake-slow", "1"]}, ttl_seconds=1)`."""

    @asynccontextmanager
    async def make(models: dict[str, list[str]], **rules: Any) -> AsyncIterator[Fleet]:
        folder = tmp_path / "models"
        settings = fake_settings(folder, fake_llama, models, supervisor=rules)
        catalog = Catalog(settings)
        catalog.scan()
        bus = Bus()
        async with Client() as client:
            with bus.subscribe() as news:
                async with Supervisor(settings, Launcher(settings), app.prober(client), bus) as supervisor:
                    yield Fleet(supervisor, catalog, folder, news)

    return make


async def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something becomes true; fail if it does not in time."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def on_ci() -> bool:
    return bool(os.environ.get("CI"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden transcripts anew")
