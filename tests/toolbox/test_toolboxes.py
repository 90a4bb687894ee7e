"""Whole toolboxes: real servers, made with the SDK, over all three transports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from llamarunner.toolbox import (
    Ephemeral,
    Integration,
    IntegrationRefused,
    Plugin,
    Toolbox,
    Toolboxes,
    ToolFailed,
    ToolUnknown,
)
from tests.conftest import eventually
from tests.programs.mcp_server import events
from tests.toolbox.opening import EXEMPLARY, LOCAL, boxes, hosted, opened, rogue, text, written

NAMES = ["add", "fail", "much", "picture", "wait", "header", "happened", "environment"]


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with hosted() as url:
        yield url


@pytest.fixture
def servers_file(tmp_path: Path, origin: str) -> Path:
    entries = {"program": EXEMPLARY, "url": {"url": f"{origin}/mcp"}, "old": {"type": "sse", "url": f"{origin}/sse"}}
    return written(tmp_path, entries)


@pytest.fixture(autouse=True)
def fresh() -> None:
    events.clear()


def by_url(origin: str, path: str, **more: object) -> Ephemeral:
    return Ephemeral("there", f"{origin}/{path}", **more)  # type: ignore[arg-type]


INTEGRATIONS = ["http", "sse", "mcp/program", "mcp/url", "mcp/old"]


@pytest.mark.parametrize("way", INTEGRATIONS)
async def test_tools_of_real_servers(way: str, origin: str, servers_file: Path) -> None:
    url = by_url(origin, "mcp" if way == "http" else "sse")
    integration: Integration = Plugin(way) if "/" in way else url
    async with opened(integration, servers_file=servers_file) as toolbox:
        assert [tool.name for tool in toolbox.tools] == NAMES
        add = toolbox.tools[0]
        assert (add.description, add.parameters["required"]) == ("Add two numbers.", ["a", "b"])
        own = {"plugin_id": way, "type": "plugin"}
        assert add.provider == (own if "/" in way else {"server_label": "there", "type": "ephemeral_mcp"})
        outcome = await toolbox.call("add", {"a": 40, "b": 2})
        assert (outcome.output, outcome.failed) == ('[{"type":"text","text":"42"}]', False)
        outcome = await toolbox.call("fail", {"reason": "because"})
        assert outcome.failed
        assert "fail" in text(outcome.output)
        outcome = await toolbox.call("picture", {})
        assert json.loads(outcome.output) == [{"type": "image", "data": "iVBORw==", "mimeType": "image/png"}]


async def test_several_servers_at_once_and_calls_at_the_same_time(origin: str, servers_file: Path) -> None:
    async with opened(by_url(origin, "mcp"), Plugin("mcp/program", ["add"]), servers_file=servers_file) as toolbox:
        names = [tool.name for tool in toolbox.tools]
        assert names == ["there_add", *NAMES[1:], "program_add"]
        calls = [toolbox.call(name, {"a": number, "b": 1}) for number in range(10) for name in (names[0], names[-1])]
        assert [text(outcome.output) for outcome in await asyncio.gather(*calls)] == [
            str(number + 1) for number in range(10) for _ in range(2)
        ]


async def test_without_integrations_there_are_no_tools() -> None:
    async with opened(allow_ephemeral=False) as toolbox:
        assert list(toolbox.tools) == []
        with pytest.raises(ToolUnknown):
            await toolbox.call("add", {})


async def test_s30_headers_go_to_their_server_with_every_request(origin: str) -> None:
    for path in ("mcp", "sse"):
        headers = {"Authorization": "Bearer of-this-server", "X-Team": "blue"}
        async with opened(by_url(origin, path, headers=headers)) as toolbox:
            assert text((await toolbox.call("header", {"name": "authorization"})).output) == "Bearer of-this-server"
            assert text((await toolbox.call("header", {"name": "x-team"})).output) == "blue"
            assert text((await toolbox.call("header", {"name": "user-agent"})).output) == "LlamaRunner"
            assert text((await toolbox.call("header", {"name": "accept-encoding"})).output) == "identity"


@pytest.mark.parametrize("way", ["http", "sse", "program"])
async def test_s31_only_allowed_tools_are_told_and_called(way: str, origin: str, servers_file: Path) -> None:
    allowed = ["happened"]
    url = by_url(origin, "mcp" if way == "http" else "sse", allowed_tools=allowed)
    integration: Integration = Plugin("mcp/program", allowed) if way == "program" else url
    async with opened(integration, servers_file=servers_file) as toolbox:
        assert [tool.name for tool in toolbox.tools] == ["happened"]
        for name in ("add", "no such tool", "there_add", ""):
            with pytest.raises(ToolUnknown):
                await toolbox.call(name, {"a": 1, "b": 2})
        assert "add" not in (await toolbox.call("happened", {})).output


@pytest.mark.parametrize("way", ["http", "program"])
async def test_an_allowed_tool_that_is_not_there_is_refused(way: str, origin: str, servers_file: Path) -> None:
    allowed = ["add", "nosuch"]
    integration: Integration = Plugin("mcp/program", allowed)
    if way == "http":
        integration = by_url(origin, "mcp", allowed_tools=allowed)
    with pytest.raises(
        IntegrationRefused, match=r"'nosuch', which .* does not have\. Its tools are: .*'add'"
    ) as caught:
        async with opened(integration, servers_file=servers_file):
            raise AssertionError("it opened")
    assert (caught.value.status, caught.value.param) == (400, "integrations")


async def test_s31_of_two_tools_of_one_name_each_is_called_by_its_label(tmp_path: Path) -> None:
    path = written(tmp_path, {"first one": rogue("adds"), "other": rogue("refuses")})
    async with opened(Plugin("mcp/first one"), Plugin("mcp/other"), servers_file=path) as toolbox:
        assert [tool.name for tool in toolbox.tools] == ["first_one_add", "other_add"]
        assert text((await toolbox.call("first_one_add", {"a": 1, "b": 2})).output) == "3"
        assert "not today" in text((await toolbox.call("other_add", {"a": 1, "b": 2})).output)
        with pytest.raises(ToolUnknown):
            await toolbox.call("add", {"a": 1, "b": 2})


async def test_results_are_cut_where_they_are_too_long(origin: str, servers_file: Path) -> None:
    integrations = {"mcp": by_url(origin, "mcp"), "sse": by_url(origin, "sse"), "stdio": Plugin("mcp/program")}
    for integration in integrations.values():
        async with opened(integration, servers_file=servers_file, result_bytes=10_000) as toolbox:
            outcome = await toolbox.call("much", {"kilobytes": 200})
            assert 9_000 < len(outcome.output.encode()) <= 10_000
            first, note = json.loads(outcome.output)
            assert first["text"].startswith("x\nx\n")
            assert "cut here" in note["text"]
            assert len(json.loads((await toolbox.call("much", {"kilobytes": 1})).output)) == 1


@pytest.mark.parametrize("way", ["http", "sse", "program"])
async def test_a_call_that_is_cancelled_is_cancelled_there(way: str, origin: str, servers_file: Path) -> None:
    url = by_url(origin, "mcp" if way == "http" else "sse")
    integration: Integration = Plugin("mcp/program") if way == "program" else url
    async with opened(integration, servers_file=servers_file) as toolbox:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(toolbox.call("wait", {"seconds": 600}))
            await (_told(toolbox, "waiting") if way == "program" else eventually(lambda: "waiting" in events))
            call.cancel()
        await (_told(toolbox, "cancelled") if way == "program" else eventually(lambda: "cancelled" in events))
        assert text((await toolbox.call("add", {"a": 1, "b": 1})).output) == "2", "the session goes on"


async def _told(toolbox: Toolbox, event: str) -> None:
    """Wait until a server of another process tells that it happened."""
    async with asyncio.timeout(10):
        while event not in (await toolbox.call("happened", {})).output:
            await toolbox.call("wait", {"seconds": 0.02})


@pytest.mark.parametrize("way", ["http", "sse", "program"])
async def test_s33_a_request_that_is_cancelled_leaves_nothing(way: str, origin: str, servers_file: Path) -> None:
    url = by_url(origin, "mcp" if way == "http" else "sse")
    integration: Integration = Plugin("mcp/program") if way == "program" else url
    here = psutil.Process()
    calling = asyncio.Event()

    async def chat(toolboxes: Toolboxes) -> None:
        async with toolboxes.opened([integration], LOCAL) as toolbox:
            calling.set()
            await toolbox.call("wait", {"seconds": 600})

    async with boxes(servers_file) as toolboxes, asyncio.TaskGroup() as group:
        task = group.create_task(chat(toolboxes))
        await calling.wait()
        if way == "program":
            (child,) = here.children()
        else:
            await eventually(lambda: "waiting" in events)
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()
        if way == "program":
            assert not child.is_running()
        else:
            await eventually(lambda: "cancelled" in events)


async def test_what_is_open_is_ended_with_the_server(servers_file: Path) -> None:
    """As when the server stops while a chat goes on."""
    async with AsyncExitStack() as server:
        toolboxes = await server.enter_async_context(boxes(servers_file))
        async with toolboxes.opened([Plugin("mcp/program", ["wait"])], LOCAL) as toolbox:
            (child,) = psutil.Process().children()
            await server.aclose()
            assert not child.is_running()
            with pytest.raises(ToolFailed):
                await toolbox.call("wait", {"seconds": 0})


def test_the_sdk_is_not_imported_at_the_start() -> None:
    heavy = "{'mcp', 'mcp_types', 'httpx2', 'uvicorn', 'starlette'}"
    code = f"import sys, llamarunner.app; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert printed.stdout.strip() == "[]"
