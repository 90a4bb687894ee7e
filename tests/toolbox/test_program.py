"""Programs as servers: how they are started, what they see of our environment, and how they end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from llamarunner.fleet.keeping import IDENTITY
from llamarunner.toolbox import Plugin, PluginFailed
from tests.conftest import eventually
from tests.toolbox.opening import EXEMPLARY, LOCAL, boxes, opened, refused, rogue, text, written


async def test_a_program_sees_its_own_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    path = written(tmp_path, {"x": {**EXEMPLARY, "env": {"TOKEN": "of its own", "HOME": str(tmp_path)}}})
    async with opened(Plugin("mcp/x"), servers_file=path) as toolbox:
        seen: dict[str, str] = json.loads(text((await toolbox.call("environment", {})).output))
    seen.pop("LC_CTYPE", None)  # Python's own
    own = {"TOKEN": "of its own", "HOME": str(tmp_path), "LLAMARUNNER_SERVER": IDENTITY}
    assert seen == {"PATH": os.environ["PATH"], **own}


async def test_a_program_is_found_on_the_path_and_runs_where_its_file_lies(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "my-server").write_text(f'#!/bin/sh\npwd > "$1"\nexec "{sys.executable}" "$2" adds\n')
    (folder / "my-server").chmod(0o755)
    for cwd, where in (({}, tmp_path), ({"cwd": "bin"}, folder), ({"cwd": str(folder)}, folder)):
        marker = tmp_path / "where"
        entry: dict[str, Any] = {**rogue("adds"), "command": "my-server", "env": {"PATH": f"{folder}:/usr/bin:/bin"}}
        entry["args"] = [str(marker), entry["args"][1]]
        async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": {**entry, **cwd}})) as toolbox:
            assert text((await toolbox.call("add", {"a": 1})).output) == "1"
        assert marker.read_text().strip() == str(where)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": "/nowhere/at/all"}, "No such file or directory"),
        ({"command": "no-such-program-anywhere"}, "No such file or directory"),
        ({"command": "/"}, "Permission denied"),
        ({"command": sys.executable, "args": ["a\0b"]}, "bad arguments"),
        ({"command": sys.executable, "cwd": "missing"}, "No such file or directory"),
    ],
    ids=["missing", "unknown", "folder", "nul", "cwd"],
)
async def test_one_that_cannot_be_started(entry: dict[str, Any], reason: str, tmp_path: Path) -> None:
    error = await refused(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": entry}))
    assert f"could not be started ({reason})" in error.message
    assert str(tmp_path) not in error.message


async def test_s33_a_program_that_will_not_end_is_ended_with_its_offspring(tmp_path: Path) -> None:
    async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": rogue("stays")})):
        tree = psutil.Process().children(recursive=True)
        assert len(tree) == 2
        begun = time.monotonic()
    assert time.monotonic() - begun < 20
    await eventually(lambda: not any(process.is_running() for process in tree))


async def test_s33_a_program_that_died_leaves_no_offspring(tmp_path: Path) -> None:
    async with opened(Plugin("mcp/x"), servers_file=written(tmp_path, {"x": rogue("stays")})) as toolbox:
        leader = psutil.Process().children()[0]
        (offspring,) = leader.children()
        leader.kill()
        with pytest.raises(PluginFailed, match="closed the connection"):
            await toolbox.call("add", {})
        await eventually(lambda: not offspring.is_running())


async def test_each_request_has_a_program_of_its_own(tmp_path: Path) -> None:
    async with boxes(written(tmp_path, {"x": rogue("adds")})) as toolboxes:
        async with toolboxes.opened([Plugin("mcp/x")], LOCAL), toolboxes.opened([Plugin("mcp/x")], LOCAL):
            assert len(psutil.Process().children()) == 2
        assert psutil.Process().children() == []
