"""Which integrations are refused, with which words; and what may stand in an mcp.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamarunner.config import McpSettings
from llamarunner.toolbox import (
    Asker,
    Ephemeral,
    Integration,
    IntegrationForbidden,
    IntegrationRefused,
    Plugin,
    PluginFailed,
)
from llamarunner.toolbox.servers import Program, Remote, check, resolve

ANYBODY = Asker(plugins=True, loopback=True)
URL = "https://example.com/mcp"


def settings(file: Path | None = None, **more: object) -> McpSettings:
    return McpSettings(allow_ephemeral=True, servers_file=file or Path("/nowhere/mcp.json")).model_copy(update=more)


def test_s29_ephemeral_servers_are_off_unless_the_owner_wants_them() -> None:
    assert not McpSettings().allow_ephemeral
    with pytest.raises(IntegrationForbidden) as caught:
        check([Ephemeral("hub", URL)], ANYBODY, McpSettings())
    assert caught.value.message.startswith("Permission denied to use ephemeral MCP server 'hub'.")
    assert (caught.value.status, caught.value.param) == (403, "integrations")
    check([Ephemeral("hub", URL)], ANYBODY, settings())


def test_plugins_need_a_file_and_the_right_to_use_it() -> None:
    for asker, rules in ((Asker(plugins=False), settings()), (ANYBODY, McpSettings())):
        with pytest.raises(IntegrationForbidden) as caught:
            check([Plugin("mcp/files")], asker, rules)
        assert caught.value.message == (
            "Permission denied to use plugin 'mcp/files'. Ensure that the server configuration allows local "
            "integrations and that your API token has the necessary permissions."
        )
        assert caught.value.status == 403
    check([Plugin("mcp/files")], ANYBODY, settings())


@pytest.mark.parametrize("name", ["files", "", "/", "a/", "/b", "a/b/c", "a /b", "a/b\n", "mcp/" + "x" * 257])
def test_the_id_of_a_plugin_is_owner_and_name(name: str) -> None:
    with pytest.raises(IntegrationRefused, match="must have the form 'owner/name'") as caught:
        check([Plugin(name)], ANYBODY, settings())
    assert caught.value.status == 400


BAD_URLS = [
    "stdio://server",
    "npx -y server",
    "file:///etc/passwd",
    "ws://example.com",
    "http://",
    "",
    "http://user:pw@example.com",
    "http://127.1/",
    "http://a b/",
    "https://example.com/" + "x" * 3000,
]


@pytest.mark.parametrize("url", BAD_URLS, ids=range(len(BAD_URLS)))
def test_s29_a_request_names_servers_by_http_alone(url: str) -> None:
    with pytest.raises(IntegrationRefused, match="'server_url' of MCP server 'hub'"):
        check([Ephemeral("hub", url)], ANYBODY, settings())


BAD_HEADERS = {
    "break": {"X-Token": "s3cret\r\nHost: other"},
    "not ascii": {"X-Token": "s3cret-ä"},
    "long": {"X-Token": "s3cret" * 2000},
    "name": {"X Token": "s3cret"},
    "empty": {"": "s3cret"},
    "host": {"HOST": "s3cret"},
    "length": {"Content-Length": "5"},
    "encoding": {"transfer-encoding": "chunked"},
    "session": {"Mcp-Session-Id": "s3cret"},
    "many": {f"X-{number}": "s3cret" for number in range(65)},
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_s30_headers_that_would_make_another_request(case: str) -> None:
    server = Ephemeral("hub", URL, headers=BAD_HEADERS[case])
    with pytest.raises(IntegrationRefused, match="'headers' of MCP server 'hub'") as caught:
        check([server], ANYBODY, settings())
    assert "s3cret" not in caught.value.message + repr(server)


@pytest.mark.parametrize("label", ["", " ", "a\nb", "x" * 257])
def test_labels(label: str) -> None:
    with pytest.raises(IntegrationRefused, match="server_label"):
        check([Ephemeral(label, URL)], ANYBODY, settings())


def test_how_many_and_none_twice() -> None:
    many: list[Integration] = [Ephemeral(str(number), URL) for number in range(9)]
    with pytest.raises(IntegrationRefused, match="at most 8"):
        check(many, ANYBODY, settings())
    check(many, ANYBODY, settings(servers_per_request=9))
    for twice in ([Plugin("mcp/a"), Plugin("mcp/a", ["x"])], [Ephemeral("a", URL), Ephemeral("a", URL + "/other")]):
        with pytest.raises(IntegrationRefused, match="twice"):
            check(twice, ANYBODY, settings())
    check([Plugin("mcp/a"), Ephemeral("mcp/a", URL)], ANYBODY, settings())


def test_what_an_ephemeral_server_may_reach() -> None:
    for private, loopback in ((False, True), (True, False), (True, True)):
        asker = Asker(plugins=False, loopback=loopback)
        (server,) = resolve([Ephemeral("a", URL)], asker, settings(allow_private_addresses=private))
        assert isinstance(server.way, Remote)
        assert (server.way.private, server.way.loopback) == (private, private and loopback)


def written(folder: Path, text: str) -> Path:
    path = folder / "mcp.json"
    path.write_text(text)
    return path


def test_the_file_has_programs_and_urls(tmp_path: Path) -> None:
    entries = {
        "files": {"command": "npx", "args": ["-y", "server"], "env": {"A": "b"}, "autoApprove": ["x"], "cwd": "work"},
        "My Hub": {"url": URL, "headers": {"Authorization": "Bearer x"}},
        "old": {"type": "sse", "url": URL},
        "new": {"type": "streamable-http", "url": URL},
    }
    path = written(tmp_path, json.dumps({"mcpServers": entries, "other": 1}))
    plugins = [Plugin("mcp/files", ["read"]), Plugin("mcp/My Hub"), Plugin("mcp/old"), Plugin("mcp/new")]
    files, hub, old, new = resolve(plugins, ANYBODY, settings(path))
    assert files.way == Program("npx", ("-y", "server"), {"A": "b"}, tmp_path / "work")
    assert (files.label, files.allowed_tools) == ("files", ["read"])
    assert files.provider == {"type": "plugin", "plugin_id": "mcp/files"}
    assert hub.way == Remote(URL, {"Authorization": "Bearer x"}, None, private=True, loopback=True)
    assert [server.way.transport for server in (old, new) if isinstance(server.way, Remote)] == ["sse", "http"]


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"mcpServers": {"off": {"command": "x", "disabled": True}}}))
    for name, reason in (("mcp/other", "not found"), ("owner/off", "not found"), ("mcp/off", "disabled")):
        with pytest.raises(IntegrationRefused, match=reason):
            resolve([Plugin(name)], ANYBODY, settings(path))


BAD_FILES = {
    "no json": ("{", "it is no JSON"),
    "deep": ("[" * 100_000, "it is no JSON"),
    "list": ("[]", "no object 'mcpServers'"),
    "no servers": ('{"servers": {}}', "no object 'mcpServers'"),
    "large": (" " * 1_100_000, "more than 1048576 bytes"),
    "neither": ('{"mcpServers": {"x": {}}}', "either a 'command' or a 'url'"),
    "both": ('{"mcpServers": {"x": {"command": "a", "url": "https://example.com"}}}', "either a 'command' or a 'url'"),
    "number": ('{"mcpServers": {"x": {"command": "a", "env": {"KEY": 5}}}}', "env.KEY"),
    "text": ('{"mcpServers": {"x": "npx"}}', "entry is not valid"),
    "url": ('{"mcpServers": {"x": {"url": "file:///"}}}', "url is not valid"),
    "header": ('{"mcpServers": {"x": {"url": "https://example.com", "headers": {"A": "s3cret\\n"}}}}', "value of 'A'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_good(case: str, tmp_path: Path) -> None:
    content, reason = BAD_FILES[case]
    with pytest.raises(PluginFailed, match=reason) as caught:
        resolve([Plugin("mcp/x")], ANYBODY, settings(written(tmp_path, content)))
    assert str(tmp_path) not in caught.value.message
    assert "s3cret" not in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PluginFailed, match="cannot be read"):
        resolve([Plugin("mcp/x")], ANYBODY, settings(tmp_path / "none.json"))
