"""Ollama's official JavaScript client, with the real runtime and the demo models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import javascript
from tests.house.conftest import OpenHouse
from tests.library.places import Registry, model_bytes, served


@pytest.mark.usefixtures("npm_packages")
async def test_every_method_of_the_javascript_client(open_house: OpenHouse, tmp_path: Path) -> None:
    registry = Registry()
    async with served(registry):
        registry.offer("library/mario", ("model", model_bytes(tmp_path)))
        catalog = {"registry": registry.url, "library": str(tmp_path / "library"), "demo_models": "show"}
        async with open_house({"catalog": catalog}) as house:
            said = await javascript.run("ollama_client.js", house.urls["Ollama"])
    assert said.splitlines()[-1] == "all is well"
