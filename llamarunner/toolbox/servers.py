"""Which servers an integration means, and who may use them: the rules, and the owner's `mcp.json`.

The file has the form that Cursor gave it: `{"mcpServers": {label: {"command", "args", "env"} | {"url", "headers"}}}`.
What else such files hold, for other programs, is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llamarunner.config import McpSettings
from llamarunner.outbound import Denied, check_url
from llamarunner.toolbox.contract import (
    Asker,
    Ephemeral,
    Integration,
    IntegrationForbidden,
    IntegrationRefused,
    Plugin,
    PluginFailed,
    ToolFailed,
)
from llamarunner.toolbox.listing import shown

PARAM = "integrations"
PLUGIN_ID = re.compile(r"[^/\s]{1,256}/[^/\x00-\x1f\x7f]{1,256}")
LABEL_LENGTH = 256
FILE_BYTES = 1_048_576
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110, 5.6.2
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]{0,8192}")
MOST_HEADERS = 64
MOST_SHOWN = 50  # names of tools in a message
OUR_HEADERS = frozenset(  # those that make the message, or are the protocol's own
    (
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
        *("host", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"),
    )
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that is asked by HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    transport: str | None = None  # "http" or "sse", None if that has to be found out
    private: bool = False  # may be in a private network
    loopback: bool = False  # may be on this machine


@dataclass(frozen=True, slots=True)
class Program:
    """A server that is started, and spoken to through its standard input and output."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    folder: Path


@dataclass(frozen=True, slots=True)
class Server:
    """A server that a request may use."""

    label: str
    provider: Mapping[str, str]
    way: Remote | Program
    allowed_tools: Sequence[str] | None = None

    def check_allowed(self, names: Sequence[str]) -> None:
        """Raise IntegrationRefused if a tool is allowed that the server, whose tools these are, does not have."""
        missing = next((name for name in self.allowed_tools or () if name not in names), None)
        if missing is not None:
            has = ", ".join(map(shown, names[:MOST_SHOWN])) + (" and more" if len(names) > MOST_SHOWN else "")
            raise _refused(
                f"'allowed_tools' names {shown(missing)}, which MCP server '{self.label}' does not have. "
                f"Its tools are: {has or 'none'}."
            )

    def unreachable(self, reason: str) -> ToolFailed:
        """The error of one that gives no tools."""
        if "plugin_id" in self.provider:
            return PluginFailed(f"Unable to connect to plugin '{self.provider['plugin_id']}'. {reason}", param=PARAM)
        url = self.way.url.partition("?")[0] if isinstance(self.way, Remote) else ""
        return ToolFailed(
            f"Unable to connect to remote MCP server '{self.label}' at url '{url}'. {reason}", param=PARAM
        )

    def failed(self, tool: str, reason: str) -> ToolFailed:
        """The error of one that was lost in a call."""
        if "plugin_id" in self.provider:
            return PluginFailed(f"Plugin '{self.provider['plugin_id']}' failed to run {shown(tool)}. {reason}")
        return ToolFailed(f"Remote MCP server '{self.label}' failed to run {shown(tool)}. {reason}")


def check(integrations: Sequence[Integration], asker: Asker, settings: McpSettings) -> None:
    """Refuse what may not be used, or cannot be, as far as can be told without asking anybody.

    Raises IntegrationForbidden (403) or IntegrationRefused (400).
    """
    most = settings.servers_per_request
    if len(integrations) > most:
        raise _refused(f"There are {len(integrations)} integrations, and at most {most} may be used at a time.")
    for index, integration in enumerate(integrations):
        if isinstance(integration, Plugin):
            _check_plugin(integration, asker, settings)
        else:
            _check_ephemeral(integration, settings)
        if _key(integration) in map(_key, integrations[:index]):
            raise _refused(f"The integration {shown(_key(integration)[1])} is there twice.")


def _key(integration: Integration) -> tuple[str, str]:
    if isinstance(integration, Plugin):
        return "plugin", integration.id
    return "ephemeral_mcp", integration.server_label


def _check_plugin(plugin: Plugin, asker: Asker, settings: McpSettings) -> None:
    if not PLUGIN_ID.fullmatch(plugin.id):
        raise _refused(f"Invalid plugin identifier {shown(plugin.id)}: it must have the form 'owner/name'.")
    if not asker.plugins or settings.servers_file is None:
        raise IntegrationForbidden(
            f"Permission denied to use plugin '{plugin.id}'. Ensure that the server configuration allows local "
            "integrations and that your API token has the necessary permissions.",
            param=PARAM,
        )


def _check_ephemeral(server: Ephemeral, settings: McpSettings) -> None:
    label = server.server_label
    if not label.strip() or len(label) > LABEL_LENGTH or not label.isprintable():
        raise _refused(f"'server_label' must be a text of 1 to {LABEL_LENGTH} printable characters.")
    if not settings.allow_ephemeral:
        raise IntegrationForbidden(
            f"Permission denied to use ephemeral MCP server '{label}'. Ensure that the server configuration allows "
            "per-request MCP servers (mcp.allow_ephemeral).",
            param=PARAM,
        )
    try:
        check_url(server.server_url)
    except Denied as error:
        raise _refused(f"'server_url' of MCP server '{label}': {error.message}") from None
    if len(server.headers) > MOST_HEADERS:
        raise _refused(f"'headers' of MCP server '{label}' are more than {MOST_HEADERS}.")
    for name, value in server.headers.items():
        if problem := header_problem(name, value):
            raise _refused(f"'headers' of MCP server '{label}': {problem}")


def header_problem(name: str, value: str) -> str | None:
    """Say why a header cannot be sent, without telling its value; None if it can."""
    if not HEADER_NAME.fullmatch(name):
        return "a name has characters that no header may have."
    if name.lower() in OUR_HEADERS:
        return f"'{name}' may not be set."
    if not HEADER_VALUE.fullmatch(value):
        return f"the value of '{name}' has characters that no header may have, or too many."
    return None


def _refused(message: str) -> IntegrationRefused:
    return IntegrationRefused(message, param=PARAM)


def resolve(integrations: Sequence[Integration], asker: Asker, settings: McpSettings) -> list[Server]:
    """Return the servers of integrations that `check` has let pass; reads the owner's file.

    Raises IntegrationRefused for a plugin that is not there, and PluginFailed where the file is no good.
    """
    entries: Mapping[str, object] | None = None
    servers = []
    for integration in integrations:
        if isinstance(integration, Ephemeral):
            servers.append(_ephemeral(integration, asker, settings))
            continue
        assert settings.servers_file
        entries = _read(settings.servers_file, integration.id) if entries is None else entries
        servers.append(_plugin(integration, entries, settings.servers_file.parent))
    return servers


def _ephemeral(server: Ephemeral, asker: Asker, settings: McpSettings) -> Server:
    private = settings.allow_private_addresses
    way = Remote(server.server_url, server.headers, private=private, loopback=private and asker.loopback)
    provider = {"server_label": server.server_label, "type": "ephemeral_mcp"}
    return Server(server.server_label, provider, way, server.allowed_tools)


class _Entry(BaseModel):
    """A server of the file."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    command: str | None = Field(None, min_length=1)
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    type: str | None = None
    disabled: bool = False


def _read(path: Path, plugin: str) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES + 1)
        if len(text) > FILE_BYTES:
            raise _broken(plugin, f"it has more than {FILE_BYTES} bytes")
        document = json.loads(text)
    except OSError as error:
        raise _broken(plugin, f"it cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _broken(plugin, "it is no JSON") from None
    entries = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise _broken(plugin, "it has no object 'mcpServers'")
    return entries


def _plugin(plugin: Plugin, entries: Mapping[str, object], folder: Path) -> Server:
    owner, _, label = plugin.id.partition("/")
    if owner != "mcp" or label not in entries:
        raise _refused(f"Plugin '{plugin.id}' was not found: it is no server of the file that mcp.servers_file names.")
    try:
        entry = _Entry.model_validate(entries[label])
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise _broken(plugin.id, f"its entry is not valid: {place}: {problem['msg']}") from None
    if entry.disabled:
        raise _refused(f"Plugin '{plugin.id}' is disabled.")
    provider = {"plugin_id": plugin.id, "type": "plugin"}
    return Server(label, provider, _way(plugin.id, entry, folder), plugin.allowed_tools)


def _way(plugin: str, entry: _Entry, folder: Path) -> Remote | Program:
    if (entry.command is None) == (entry.url is None):
        raise _broken(plugin, "its entry must have either a 'command' or a 'url'")
    if entry.command is not None:
        place = folder / Path(entry.cwd).expanduser() if entry.cwd else folder
        return Program(entry.command, tuple(entry.args), entry.env, place)
    assert entry.url is not None
    try:
        check_url(entry.url)
    except Denied as error:
        raise _broken(plugin, f"its url is not valid: {error.message}") from None
    for name, value in entry.headers.items():
        if problem := header_problem(name, value):
            raise _broken(plugin, f"its headers: {problem}")
    transport = "sse" if entry.type == "sse" else "http" if entry.type else None
    return Remote(entry.url, entry.headers, transport, private=True, loopback=True)


def _broken(plugin: str, reason: str) -> PluginFailed:
    return PluginFailed(f"Unable to connect to plugin '{plugin}'. The server's mcp.json is no good: {reason}.")
