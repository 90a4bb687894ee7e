"""Tools for chats: MCP servers that a request names, and those of the owner's `mcp.json`."""

from llamarunner.toolbox.contract import (
    Asker,
    Ephemeral,
    Integration,
    IntegrationForbidden,
    IntegrationRefused,
    Outcome,
    Plugin,
    PluginFailed,
    Tool,
    Toolbox,
    ToolFailed,
    ToolUnknown,
)

__all__ = [
    "Asker",
    "Ephemeral",
    "Integration",
    "IntegrationForbidden",
    "IntegrationRefused",
    "Outcome",
    "Plugin",
    "PluginFailed",
    "Tool",
    "ToolFailed",
    "ToolUnknown",
    "Toolbox",
]
