"""Which speech model is meant by one of OpenAI's names."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doors import House
from hearing import ask, clip, open_house

from llamarunner.config import Door, bundled
from llamarunner.errors import SpeechModelNotFound
from llamarunner.server.resolve import resolve_speech

MODEL = bundled("models") / "demo-whisper"


def put(folder: Path) -> Path:
    return Path(shutil.copytree(MODEL, folder))


def meant(house: House, name: str) -> str:
    return resolve_speech(house.services.views[0], name, "transcribe").id


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """With a damaged model, which is the first by its name."""
    put(tmp_path / "own" / "zzz")
    os.truncate(put(tmp_path / "own" / "aaa") / "model.bin", 100_000)
    catalog = {"folders": [tmp_path / "own"], "aliases": {"gpt-4o-mini-transcribe": "aaa"}}
    async with open_house(tmp_path, catalog=catalog) as opened:
        yield opened


async def test_a_damaged_model_stops_nobody_for_long(house: House) -> None:
    names = ("whisper-1", "Whisper-1", "gpt-4o-transcribe")
    assert {meant(house, name) for name in names} == {"aaa"}
    status, told = await ask(house, clip("german.wav"), model="whisper-1")
    assert status == 503
    assert told["error"]["message"].endswith("its file is truncated.")
    assert {meant(house, name) for name in names} == {"zzz"}
    status, told = await ask(house, clip("german.wav"), model="gpt-4o-transcribe")
    assert (status, told["text"]) == (200, "drei sechs vier")
    assert meant(house, "gpt-4o-mini-transcribe") == "aaa", "its alias says so"


async def test_one_that_is_loaded_comes_first_and_then_one_of_known_size(tmp_path: Path) -> None:
    put(tmp_path / "own" / "aaa")
    put(tmp_path / "own" / "faster-whisper-tiny")
    async with open_house(tmp_path, catalog={"folders": [tmp_path / "own"]}) as house:
        assert meant(house, "whisper-1") == "whisper-tiny"
        assert (await ask(house, clip("german.wav"), model="aaa"))[0] == 200
        assert meant(house, "whisper-1") == "aaa"


async def test_what_is_set_comes_before_all(tmp_path: Path) -> None:
    put(tmp_path / "own" / "faster-whisper-tiny")
    audio, catalog = {"default_model": "demo-whisper"}, {"folders": [tmp_path / "own"]}
    async with open_house(tmp_path, audio=audio, catalog=catalog) as house:
        assert meant(house, "whisper-1") == meant(house, "gpt-4o-transcribe") == "demo-whisper"


async def test_where_none_is_the_way_to_one_is_told(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(models=["demo-chat"])) as house:
        for name in ("whisper-1", "gpt-4o-transcribe", "nonsense"):
            with pytest.raises(SpeechModelNotFound) as told:
                meant(house, name)
            assert "`hf download Systran/faster-whisper-base`" in told.value.message
            assert "catalog.aliases" in told.value.message
