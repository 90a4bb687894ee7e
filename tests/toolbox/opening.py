"""Toolboxes over real servers: programs of tests/programs, and hosts on real sockets."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from llamarunner.config import McpSettings, OutboundSettings
from llamarunner.outbound import Outbound
from llamarunner.toolbox import Asker, Integration, Toolbox, Toolboxes, ToolFailed
from tests.conftest import PROGRAMS
from tests.programs import mcp_server

LOCAL = Asker(plugins=True, loopback=True)
EXEMPLARY = {"command": sys.executable, "args": [str(PROGRAMS / "mcp_server.py"), "stdio"]}


def rogue(way: str, **more: object) -> dict[str, object]:
    """The entry in an mcp.json of a program that misbehaves."""
    return {"command": sys.executable, "args": ["-E", str(PROGRAMS / "rogue_mcp.py"), way], **more}


def written(folder: Path, servers: Mapping[str, object]) -> Path:
    """Write an mcp.json."""
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


@asynccontextmanager
async def boxes(servers_file: Path | None = None, **settings: Any) -> AsyncIterator[Toolboxes]:
    """Toolboxes that may use everything on this machine, unless the settings say otherwise."""
    local = {"allow_ephemeral": True, "allow_private_addresses": True, "connect_seconds": 50}  # a busy machine is slow
    given = {**local, "servers_file": servers_file, **settings}
    guard = given.pop("outbound", None) or Outbound(OutboundSettings(), set)
    async with Toolboxes(McpSettings(**given), guard) as toolboxes:
        yield toolboxes


@asynccontextmanager
async def opened(*integrations: Integration, **settings: Any) -> AsyncIterator[Toolbox]:
    """One toolbox."""
    async with boxes(**settings) as toolboxes, toolboxes.opened(integrations, LOCAL) as toolbox:
        yield toolbox


async def refused(*integrations: Integration, **settings: Any) -> ToolFailed:
    """Why a toolbox does not open."""
    try:
        async with opened(*integrations, **settings):
            raise AssertionError("it opened")
    except ToolFailed as error:
        return error


async def lost(integration: Integration, **settings: Any) -> ToolFailed:
    """Why its tool `add` cannot be called."""
    async with opened(integration, **settings) as toolbox:
        try:
            outcome = await toolbox.call("add", {"a": 1, "b": 2})
        except ToolFailed as error:
            return error
    raise AssertionError(f"it gave {outcome}")


@contextmanager
def hosted() -> Iterator[str]:
    """Host the exemplary server in a thread; yield its origin."""
    config = uvicorn.Config(mcp_server.listening(), port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def text(output: str) -> str:
    """The text of an output with one block."""
    (block,) = json.loads(output)
    return str(block["text"])
