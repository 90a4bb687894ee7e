"""A real MCP server, made with the SDK: `mcp_server.py stdio`, or `mcp_server.py http`, which prints its port and
speaks streamable HTTP at /mcp and HTTP with SSE at /sse.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("exemplary", version="1", log_level="CRITICAL")
heard: dict[str, str] = {}
events: list[str] = []


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    events.append("add")
    return a + b


@server.tool(structured_output=False)
def fail(reason: str) -> str:
    """Fail."""
    raise ValueError(reason)


@server.tool(structured_output=False)
def much(kilobytes: int) -> str:
    """Say much."""
    return "x\n" * (kilobytes * 512)


@server.tool()
def picture() -> Image:
    """Give a picture."""
    return Image(data=b"\x89PNG", format="png")


@server.tool(structured_output=False)
async def wait(seconds: float) -> str:
    """Wait."""
    events.append("waiting")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        events.append("cancelled")
        raise
    return "waited"


@server.tool(structured_output=False)
def header(name: str) -> str:
    """Tell a header of the last request."""
    return heard.get(name.lower(), "")


@server.tool()
def happened() -> list[str]:
    """Tell what happened."""
    return events


@server.tool()
def environment() -> dict[str, str]:
    """Tell the environment."""
    return dict(os.environ)


def listening() -> Any:
    """The ASGI application of both transports; remembers headers and the ends of sessions."""
    app = server.streamable_http_app()
    app.router.routes.extend(server.sse_app().routes)

    async def overheard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            heard.clear()
            heard.update({name.decode().lower(): value.decode() for name, value in scope["headers"]})
            if scope["method"] == "DELETE":
                events.append("deleted")
        await app(scope, receive, send)

    return overheard


def main() -> None:
    if sys.argv[1] == "stdio":
        server.run()
        return
    sock = socket.create_server(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(listening(), log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
