"""Both doors, opened on free ports over a folder of fake models, with real sockets and real child programs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from llamarunner import app
from llamarunner.catalog import Catalog, ModelEntry
from llamarunner.config import (
    NO_LIMITS,
    CatalogSettings,
    ChatSettings,
    Discover,
    Door,
    ModelSettings,
    ServerSettings,
    Settings,
    SupervisorSettings,
    WebhookSettings,
)
from llamarunner.events import Bus
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.library import Library
from llamarunner.server import listener
from llamarunner.server.client import Client
from llamarunner.server.drain import Drain
from llamarunner.server.services import Services

PROGRAMS = Path(__file__).parent.parent / "programs"
sys.path.insert(0, str(PROGRAMS))

from write_gguf import write_model  # noqa: E402

ANNOUNCES = re.compile(r"listening on http://127\.0\.0\.1:(?P<port>\d+)")
NOWHERE = Discover(ollama=False, lmstudio=False, huggingface=False, llama_cpp=False)
KEY = "secret-of-the-child"


@dataclass
class House:
    """Two open doors and what is behind them."""

    services: Services
    urls: dict[str, str]
    client: aiohttp.ClientSession
    journal_file: Path

    @property
    def url(self) -> str:
        return self.urls["lmstudio"]

    @property
    def address(self) -> tuple[str, int]:
        url = URL(self.url)
        return str(url.host), int(url.port or 0)

    def post(self, path: str, document: object, **options: Any) -> Any:
        return self.client.post(self.url + path, json=document, **options)

    def chat(self, **document: Any) -> Any:
        """Ask the model `chat`; `fake` tells the child how to misbehave."""
        messages = [{"role": "user", "content": "hello"}]
        return self.post("/v1/chat/completions", {"model": "chat", "messages": messages, **document})

    def journal(self, what: str) -> list[dict[str, Any]]:
        """What the children wrote down of one kind."""
        if not self.journal_file.exists():
            return []
        whole, _, _ = self.journal_file.read_text().rpartition("\n")  # the last line may still be being written
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line["what"] == what]

    async def wait_for(self, what: str, count: int = 1, seconds: float = 5.0) -> list[dict[str, Any]]:
        """Wait until the children wrote down so many of one kind."""
        await self.until(lambda: len(self.journal(what)) >= count, seconds)
        return self.journal(what)

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            await asyncio.sleep(0.005)

    def leases(self) -> int:
        """How many leases are held, and how many callers wait."""
        units = self.services.supervisor._schedule.units.values()
        return sum(len(unit.leases) + len(unit.waiting) for unit in units)

    async def request(self, text: str | bytes, until: bytes | None = None, seconds: float = 5.0) -> bytes:
        """Send raw bytes on a connection of their own; read until the server closes it, or `until` has come."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(text.encode() if isinstance(text, str) else text)
        try:
            async with asyncio.timeout(seconds):
                return await (reader.readuntil(until) if until else reader.read())
        finally:
            writer.close()


@asynccontextmanager
async def open_house(
    folder: Path,
    *,
    door: Door | None = None,
    server: dict[str, Any] | None = None,
    supervisor: dict[str, Any] | None = None,
    models: dict[str, dict[str, Any]] | None = None,
    flags: tuple[str, ...] = (),
    program: tuple[str, ...] | None = None,
    registry: str = "http://127.0.0.1:9",
    **sections: Any,
) -> AsyncIterator[House]:
    """Open both doors; `models` are names and headers of files to write, `flags` go to every fake child.

    `door` is how both doors are, without limits if it is not given. `program` is another child program, with all its
    arguments. `registry` is where library names are pulled from: nowhere, if it is not given. `sections` are of the
    settings.
    """
    for name, header in ({"chat": {}} if models is None else models).items():
        write_model(folder / "models" / f"{name}.gguf", **header)
    settings = Settings(
        catalog=CatalogSettings(
            folders=(folder / "models",),
            library=folder / "library",
            registry=registry,
            discover=NOWHERE,
            demo_models="hide",
        ),
        server=ServerSettings(**(server or {})),
        supervisor=SupervisorSettings(**{"memory_check": False, **(supervisor or {})}),
        webhooks=WebhookSettings(**{"state_folder": folder / "state", **sections.pop("webhooks", {})}),
        chats=ChatSettings(**{"folder": folder / "chats", **sections.pop("chats", {})}),
        **sections,
    )
    journal = folder / "journal"
    door = door or Door(rate_limits=NO_LIMITS)
    async with AsyncExitStack() as stack:
        fake = ("fake_llama.py", "--port", "0", "--fake-journal", str(journal), *flags)
        services = await stack.enter_async_context(_services(settings, program or fake))
        urls = {}
        for name in ("ollama", "lmstudio"):
            opening = listener.opened(door, name, services, listener.bind("127.0.0.1", 0))
            urls[name] = await stack.enter_async_context(opening)
        client = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        yield House(services, urls, client, journal)


@asynccontextmanager
async def _services(settings: Settings, program: tuple[str, ...]) -> AsyncIterator[Services]:
    catalog = Catalog(settings)
    catalog.scan()

    def describe(entry: ModelEntry, task: Task, model: ModelSettings) -> Launch:
        flags = {"--ctx-size": model.ctx_size, "--parallel": model.parallel}
        chosen = [part for flag, value in flags.items() if value for part in (flag, str(value))]
        argv = (sys.executable, str(PROGRAMS / program[0]), *program[1:], *chosen)
        return Launch("fake", argv, ANNOUNCES, KEY, "/health", {"LLAMA_API_KEY": KEY})

    bus = Bus()
    async with Client() as client, Supervisor(settings, describe, app.prober(client), bus) as supervisor:
        services = Services(settings, catalog, supervisor, bus, client, Drain(), "1.2.3", time.monotonic())
        state = settings.catalog.library.parent / "digests.json" if settings.catalog.library else None
        services.library = Library(catalog, services.outbound, services.reconcile, state=state)
        async with services.library, services.webhooks, services.chats, services.toolboxes:
            yield services
