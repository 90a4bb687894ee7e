"""What a chat knows of tools: which there are, and how one is called; and what a client says of where they come from.

async with toolboxes.opened(integrations, asker) as toolbox:
    outcome = await toolbox.call(toolbox.tools[0].name, {"a": 1})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llamarunner.errors import Forbidden, InvalidRequest, LlamaRunnerError


@dataclass(frozen=True, slots=True)
class Plugin:
    """A server of the owner's `mcp.json`, `mcp/<label>`; without `allowed_tools`, all its tools."""

    id: str
    allowed_tools: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """A server that a request names by its URL. Its headers may be secrets: they go to it alone."""

    server_label: str
    server_url: str
    allowed_tools: Sequence[str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Integration = Plugin | Ephemeral


@dataclass(frozen=True, slots=True)
class Asker:
    """What whoever asks may do."""

    plugins: bool  # use the servers of the owner's mcp.json
    loopback: bool = False  # is on this machine, and may name its own addresses where private ones may be named


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as a model is told of it."""

    name: str  # unique in its toolbox, of A-Z a-z 0-9 _ - alone, at most 64 of them
    description: str
    parameters: Mapping[str, object]  # a JSON Schema whose type is object
    provider: Mapping[str, str]  # `provider_info` of LM Studio's REST API: type, and plugin_id or server_label


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave."""

    output: str  # JSON text of MCP's content array
    failed: bool  # the tool itself, or its server, says that the call went wrong; the model may read why


class Toolbox(Protocol):
    """The tools of one request. Calls may run at the same time."""

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools, in the order of the integrations and then of their servers; they stay as they are."""

    async def call(self, name: str, arguments: Mapping[str, object]) -> Outcome:
        """Call a tool; in bounded time, and with an output of bounded size.

        Raises ToolFailed when its server is lost, silent or speaks nonsense, and ToolUnknown for a name that is not
        in `tools`.
        """


class ToolUnknown(LlamaRunnerError):
    """There is no tool of that name here, or it is not allowed."""

    status, code, type = 400, "invalid_name", "invalid_request"


class ToolFailed(LlamaRunnerError):
    """A server of tools cannot be reached, or not be used; `code` is LM Studio's type of the error."""

    status, code, type = 502, "mcp_connection_error", "mcp_connection_error"


class PluginFailed(ToolFailed):
    """The same of a server of the owner's."""

    code, type = "plugin_connection_error", "plugin_connection_error"


class IntegrationRefused(InvalidRequest):
    """What was asked for cannot be, whoever asks; known before anything is connected."""

    type = "invalid_request"


class IntegrationForbidden(Forbidden):
    """The settings, or the rights of the key, do not allow it; known before anything is connected."""

    type = "invalid_request"
