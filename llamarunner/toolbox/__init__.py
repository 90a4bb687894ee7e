"""Tools for chats: MCP servers that a request names, and those of the owner's `mcp.json`.

    async with Toolboxes(settings.mcp, outbound) as toolboxes:
        async with toolboxes.opened(integrations, asker) as toolbox:
            outcome = await toolbox.call(toolbox.tools[0].name, {"a": 1})

* `contract`   what a chat sees: tools, outcomes, errors; and what a client says of where tools come from.
* `servers`    which server an integration means and who may use it; reads the `mcp.json`.
* `listing`    what models are told of tools; `results` what they read of a result; `arguments` what they got wrong.
* `wire`       how much a server may send. `remote` asks by HTTP, `program` starts a program and speaks to it.
* `session`    one server in the service of one request.
* `room`       opens them all, and closes them.

A server is a stranger: dead, slow, lying or flooding, it costs a request a clear error, in bounded time and memory.
The protocol is spoken by the official SDK, which takes a second to import; so `session`, `wire`, `remote` and `program`
are imported by the first request that needs them.
"""

from llamarunner.toolbox.arguments import complaint
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
from llamarunner.toolbox.room import Toolboxes

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
    "Toolboxes",
    "complaint",
]
