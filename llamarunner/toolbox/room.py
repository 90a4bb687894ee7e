"""Opens toolboxes: connects to the servers of a request, and closes them with it.

Each request has servers of its own: nothing that one client's calls leave behind in a server (pages, files, secrets in
its memory) can be seen by the next, and nothing idles. The price is the start of a program for each chat that uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Self

from llamarunner.config import McpSettings
from llamarunner.outbound import Outbound
from llamarunner.toolbox import servers
from llamarunner.toolbox.contract import Asker, Integration, Outcome, Tool, Toolbox, ToolUnknown
from llamarunner.toolbox.listing import named, shown

if TYPE_CHECKING:
    from llamarunner.toolbox.session import Session

LEAVE_SECONDS = 3.0  # for good manners


class Toolboxes:
    """What chats may use of MCP servers. Open it first; leaving it ends all sessions."""

    def __init__(self, settings: McpSettings, outbound: Outbound) -> None:
        self.settings = settings
        self._outbound = outbound
        self._group = asyncio.TaskGroup()
        self._lives: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for life in self._lives:
            life.cancel()
        await self._group.__aexit__(None, None, None)

    def configure(self, settings: McpSettings) -> None:
        """Take over new settings, for the requests to come."""
        self.settings = settings

    def check(self, integrations: Sequence[Integration], asker: Asker) -> None:
        """Refuse what may not be used, or cannot be, before anything is connected; `opened` does so too.

        Raises IntegrationForbidden (403) or IntegrationRefused (400).
        """
        servers.check(integrations, asker, self.settings)

    @asynccontextmanager
    async def opened(self, integrations: Sequence[Integration], asker: Asker) -> AsyncIterator[Toolbox]:
        """Connect to all servers, for at most `connect_seconds`; leaving takes some seconds where a server is slow to
        part. Raises what `check` raises, and ToolFailed.
        """
        settings = self.settings
        servers.check(integrations, asker, settings)
        if not integrations:
            yield Box([])
            return
        found = await asyncio.to_thread(servers.resolve, integrations, asker, settings)
        module = await asyncio.to_thread(import_module, "llamarunner.toolbox.session")  # the SDK takes a second
        sessions: list[Session] = [module.Session(server, settings, self._outbound) for server in found]
        lives = {self._live(session): session for session in sessions}
        try:
            deadline = asyncio.get_running_loop().time() + settings.connect_seconds
            for session in sessions:
                await session.connected(deadline)
            yield Box(sessions)
        finally:
            await _leave(lives)

    def _live(self, session: Session) -> asyncio.Task[None]:
        life = self._group.create_task(session.run())
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return life


async def _leave(lives: Mapping[asyncio.Task[None], Session]) -> None:
    for life, session in lives.items():
        if not session.leave():
            life.cancel()
    try:
        await asyncio.wait(lives, timeout=LEAVE_SECONDS)
    finally:
        for life in lives:
            life.cancel()
    await asyncio.wait(lives)


class Box:
    """The tools of one request, as a chat sees them."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._places: dict[str, tuple[Session, str]] = {}
        self.tools: list[Tool] = []
        told = [(session.server.label, session.server.provider, session.tools) for session in sessions]
        for tool, index, name in named(told):
            self.tools.append(tool)
            self._places[tool.name] = sessions[index], name

    async def call(self, name: str, arguments: Mapping[str, object]) -> Outcome:
        """See `Toolbox.call`."""
        if name not in self._places:
            raise ToolUnknown(f"Cannot find tool with name {shown(name)}.")
        session, own = self._places[name]
        return await session.call(own, arguments)
