"""Pulls by the command line, from a registry that the tests run."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.house.conftest import House, OpenHouse
from tests.house.terminal import CTRL_C, surroundings, terminal, verb
from tests.library.places import Registry, digest_of, model_bytes, served

BIG = 20_000  # weights of 2.5 MB
NOWHERE = dict.fromkeys(("ollama", "lmstudio", "huggingface", "llama_cpp"), False)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    server = Registry()
    async with served(server):
        yield server


@pytest.fixture
async def house(open_house: OpenHouse, registry: Registry, tmp_path: Path) -> AsyncIterator[House]:
    catalog = {"registry": registry.url, "library": str(tmp_path / "library"), "discover": NOWHERE}
    async with open_house({"catalog": catalog}) as house:
        yield house


async def test_a_pull_says_what_it_does_in_plain_lines(house: House, registry: Registry, tmp_path: Path) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/mario", ("model", weights))
    ran = await verb(house, "pull", "mario")
    lines = ran.err.splitlines()
    assert (ran.code, ran.out, lines[0], lines[-1]) == (0, "", "pulling manifest", "success")
    assert f"pulling {digest_of(weights)[7:19]}: 100% of 2.6 MB" in lines
    assert "mario:latest" in (await verb(house, "ls")).out


async def test_its_json_is_the_apis_lines(house: House, registry: Registry, tmp_path: Path) -> None:
    registry.offer("library/mario", ("model", model_bytes(tmp_path)))
    ran = await verb(house, "pull", "mario", "--json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, lines[0], lines[-1]) == (0, {"status": "pulling manifest"}, {"status": "success"})
    absent = await verb(house, "pull", "luigi", "--json")
    assert (absent.code, absent.err) == (1, "llamarunner: pull model manifest: file does not exist\n")


async def test_a_bar_shows_how_far_it_is_and_control_c_leaves(house: House, registry: Registry, tmp_path: Path) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/mario", ("model", weights))
    registry.moods = ["pause"]
    name = f"pulling {digest_of(weights)[7:19]}"
    async with terminal(house.folder, "pull", "mario", env=surroundings(house)) as screen:
        await screen.until(name)
        await screen.until("50%")
        screen.type(CTRL_C)
        assert await screen.end() == 130
        await screen.until("interrupted")
    registry.go_on.set()
    async with terminal(house.folder, "pull", "mario", env=surroundings(house)) as screen:
        seen = await screen.until("success")
        assert await screen.end() == 0
    assert name in seen
    assert re.search(r"100% 2\.\d/2\.\d MB (\S+ \w+/s|\?) \d+:\d\d", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)), seen
    assert registry.requests(digest_of(weights))[-1].headers["Range"].startswith("bytes=")


async def test_run_offers_to_pull_a_model_that_is_not_here(house: House, registry: Registry, tmp_path: Path) -> None:
    registry.offer("library/mario", ("model", model_bytes(tmp_path)))
    async with terminal(house.folder, "run", "mario", env=surroundings(house)) as screen:
        await screen.until("The model 'mario' is not here. Pull it? [Y/n]: ")
        screen.type("n\n")
        assert await screen.end() == 1
        assert "interrupted" not in screen.screen
    assert not registry.asked
    async with terminal(house.folder, "run", "mario", env=surroundings(house)) as screen:
        await screen.until("Pull it? [Y/n]: ")
        screen.type("\n")
        await screen.until("success")
    assert "mario:latest" in (await verb(house, "ls")).out
