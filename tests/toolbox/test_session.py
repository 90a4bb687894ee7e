"""Servers that lie, flood, sleep and die; over stdio, as the protocol is the same over all transports."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from llamarunner.toolbox import Plugin, PluginFailed
from tests.toolbox.opening import lost, opened, refused, rogue, text, written

UNUSABLE = {
    "silent": "did not answer within 0.5 seconds",
    "crashes": r"program ended with status 1\.",
    "other_version": "version of MCP",
    "no_object": "not as MCP prescribes: 'tools.0.inputSchema.type'",
    "no_schema": r"not as MCP prescribes: 'tools.0.inputSchema'",
    "nested": "nested deeper than 32",
    "long_schema": "more than 32768 bytes",
    "twice": "lists the tool 'add' twice",
    "many": "65 tools, and at most 64",
    "nameless": "name has 0 characters",
    "endless_list": "list of tools does not end",
}


@pytest.mark.parametrize("way", UNUSABLE)
async def test_s32_a_server_that_cannot_be_used_is_told_as_such(way: str, tmp_path: Path) -> None:
    begun, path = time.monotonic(), written(tmp_path, {"x": rogue(way)})
    error = await refused(Plugin("mcp/x"), servers_file=path, connect_seconds=0.5 if way == "silent" else 30)
    assert isinstance(error, PluginFailed)
    assert re.match("Unable to connect to plugin 'mcp/x'. .*" + UNUSABLE[way], error.message)
    assert (error.code, error.param) == ("plugin_connection_error", "integrations")
    assert time.monotonic() - begun < 20


async def test_s32_what_is_unusable_may_be_left_out(tmp_path: Path) -> None:
    for way, name in (("many", "tool64"), ("odd", "a.b")):
        path = written(tmp_path, {"x": rogue(way)})
        async with opened(Plugin("mcp/x", [name]), servers_file=path) as toolbox:
            assert [tool.name for tool in toolbox.tools] == [re.sub(r"\W", "_", name)]


async def test_s32_odd_names_are_made_plain_and_still_lead_to_their_tools(tmp_path: Path) -> None:
    async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": rogue("odd")})) as toolbox:
        names = [tool.name for tool in toolbox.tools]
        assert names == ["x_a_b", "x_a_b_2", "say_hi_", "gr_e", "x" * 64]
        assert text((await toolbox.call("x_a_b_2", {"a": 1, "b": 2})).output) == "3"


LOST = {
    "dies": "closed the connection",
    "sleeps": "did not answer within 0.5 seconds",
    "other_ids": "did not answer within 0.5 seconds",
    "long_line": "message of more than 4096 KiB",
    "notifies": "It sent more than 5000 messages",
    "asks": "It asked more than 100 questions",
    "wrong_shape": "not as MCP prescribes: '.*content'",
    "not_a_number": "number that JSON cannot hold",
}


@pytest.mark.parametrize("way", LOST)
async def test_s32_a_server_that_is_lost_in_a_call_is_told_as_such(way: str, tmp_path: Path) -> None:
    begun, memory = time.monotonic(), psutil.Process().memory_info().rss
    path, seconds = written(tmp_path, {"x": rogue(way)}), 0.5 if "within" in LOST[way] else 30
    error = await lost(Plugin("mcp/x"), servers_file=path, call_seconds=seconds)
    assert isinstance(error, PluginFailed)
    assert re.match("Plugin 'mcp/x' failed to run 'add'. .*" + LOST[way], error.message)
    assert time.monotonic() - begun < 20
    assert psutil.Process().memory_info().rss - memory < 100_000_000


async def test_s32_much_on_stderr_holds_nothing_up(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": rogue("prints")})
    error = await lost(Plugin("mcp/x"), servers_file=path, call_seconds=0.5)
    assert "within 0.5 seconds" in error.message


async def test_s32_a_list_that_changes_changes_nothing(tmp_path: Path) -> None:
    async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": rogue("changes")})) as toolbox:
        for _ in range(3):
            assert text((await toolbox.call("add", {"a": 1, "b": 2})).output) == "3"
            assert [tool.name for tool in toolbox.tools] == ["add"]


async def test_an_error_of_the_protocol_is_for_the_model_to_read(tmp_path: Path) -> None:
    async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": rogue("refuses")})) as toolbox:
        for _ in range(2):
            outcome = await toolbox.call("add", {"a": 1, "b": 2})
            assert (text(outcome.output), outcome.failed) == ("MCP error -32000: not today", True)


async def test_a_program_that_wants_the_old_handshake_first_gets_it(tmp_path: Path) -> None:
    async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": rogue("strict")})) as toolbox:
        assert text((await toolbox.call("add", {"a": 1, "b": 2})).output) == "3"


async def test_s33_a_server_that_died_leaves_the_others_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, {"x": rogue("dies"), "y": rogue("adds")})
    async with opened(Plugin("mcp/x"), Plugin("mcp/y"), servers_file=path) as toolbox:
        results: list[Any] = await asyncio.gather(
            *(toolbox.call(name, {"a": 1, "b": 2}) for name in ("x_add", "y_add")), return_exceptions=True
        )
        assert isinstance(results[0], PluginFailed)
        assert text(results[1].output) == "3"
        with pytest.raises(PluginFailed, match="closed the connection"):
            await toolbox.call("x_add", {"a": 1, "b": 2})
        assert text((await toolbox.call("y_add", {"a": 2, "b": 2})).output) == "4"
    (record,) = [record for record in caplog.records if record.name == "llamarunner.toolbox"]
    assert record.levelno == logging.WARNING
    assert "out of luck" in record.getMessage()


async def test_one_that_cannot_be_reached_ends_the_others_too(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": rogue("crashes"), "y": rogue("adds")})
    error = await refused(Plugin("mcp/y"), Plugin("mcp/x"), servers_file=path)
    assert "mcp/x" in error.message
    assert psutil.Process().children() == []
