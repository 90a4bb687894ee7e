"""Which MCP servers chats may use, and within which limits."""

from __future__ import annotations

from pydantic import Field

from llamarunner.config.model import Frozen
from llamarunner.config.paths import ConfigPath


class McpSettings(Frozen):
    """Tools from MCP servers, for the chats of LM Studio's REST API."""

    allow_ephemeral: bool = Field(
        False,
        description="Let requests name MCP servers by URL, public ones, which get what the model calls them with.",
    )
    allow_private_addresses: bool = Field(
        False,
        description="Let those URLs lead into private networks, and to this machine for clients that are on it. "
        "outbound.allow_cidrs allows single networks. Never the server's own ports, nor metadata services.",
    )
    servers_file: ConfigPath | None = Field(
        None,
        description="An mcp.json, as LM Studio and Cursor write it, whose servers requests may use as mcp/<label>; it "
        "is read anew for each request. Its programs run with the rights of this server.",
    )
    servers_per_request: int = Field(8, ge=1, le=100, description="Most MCP servers that one request may use.")
    tools_per_server: int = Field(
        64, ge=1, le=1000, description="Most tools of one server; allowed_tools of a request picks some of more."
    )
    max_rounds: int = Field(
        10, ge=1, le=1000, description="How often a model may call tools, read what they gave, and go on."
    )
    connect_seconds: float = Field(
        30, gt=0, le=3600, description="How long a server may take to start and to tell its tools."
    )
    call_seconds: float = Field(60, gt=0, le=86_400, description="How long one call of a tool may take.")
    result_bytes: int = Field(
        262_144, ge=1024, le=4_194_304, description="Most of what a call gave that a model reads; the rest is cut."
    )
