"""The server itself through LM Studio's sockets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from doors import open_house
from sdk_talking import dialled

from llamarunner.config import NO_LIMITS, Door

MODELS: dict[str, dict[str, Any]] = {"chat": {}, "embed": {"architecture": "bert"}}


async def test_the_models_that_are_here(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house, dialled(house, "system") as line:
        models = (await line.rpc("listDownloadedModels"))["result"]
        assert [(one["modelKey"], one["type"]) for one in models] == [("chat", "llm"), ("embed", "embedding")]
        assert all(str(tmp_path) not in one["path"] for one in models), "no path of this machine"
        variants = (await line.rpc("listDownloadedModelVariants", {"modelKey": "CHAT"}))["result"]
        assert variants == models[:1]
        assert (await line.rpc("listDownloadedModelVariants", {"modelKey": "other"}))["result"] == []


async def test_who_serves(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        assert (await line.rpc("version"))["result"] == {"version": "1.2.3", "build": 1}
        assert (await line.rpc("info"))["result"] == {"pid": os.getpid(), "isDaemon": True, "version": "1.2.3"}
        assert (await line.rpc("getExperimentFlags"))["result"] == []
    door = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path / "other", door=door) as house, dialled(house, "system") as line:
        assert (await line.rpc("info"))["result"]["pid"] == 0


@pytest.mark.parametrize("endpoint", ["startHttpServer", "stopHttpServer", "requestShutdown", "setExperimentFlag"])
async def test_clients_do_not_run_the_server(tmp_path: Path, endpoint: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        assert (await line.rpc(endpoint, {}))["error"]["errorData"]["code"] == "forbidden"
        assert "result" in await line.rpc("version")


async def test_notices_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llamarunner.server")
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        await line.rpc("notify", {"title": "done", "description": "all of it", "noAutoDismiss": True})
    assert "a client says: done — all of it" in caplog.text
