"""How models are written down."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from llamarunner.verbs import tables


def moment(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


def row(**more: object) -> list[str]:
    """What ps says of one model."""
    one = {"name": "m:latest", "digest": "0123456789abcdef", "size": 5 * 10**9, "context_length": 4096, **more}
    return re.split(r"\s{2,}", list(tables.running({"models": [one]}))[1])


@pytest.mark.parametrize(("vram", "told"), [(0, "100% CPU"), (5 * 10**9, "100% GPU"), (4 * 10**9, "20%/80% CPU/GPU")])
def test_where_a_model_is(vram: int, told: str) -> None:
    assert row(size_vram=vram) == ["m:latest", "0123456789ab", "5.0 GB", told, "4096"]


@pytest.mark.parametrize(
    ("span", "told"),
    [
        ({"seconds": 30.5}, "30 seconds from now"),
        ({"minutes": 5, "seconds": 1}, "5 minutes from now"),
        ({"hours": 1, "minutes": 50}, "1 hour from now"),
        ({"days": 365 * 290}, "Forever"),
        ({"seconds": -1}, "Stopping..."),
    ],
)
def test_until_when_it_stays(span: dict[str, float], told: str) -> None:
    assert row(expires_at=moment(**span))[-1] == told


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    long = {
        "name": "a-very-long-name-of-a-model:with-a-tag",
        "digest": "f" * 64,
        "size": 999,
        "modified_at": moment(days=-15),
    }
    lines = list(tables.models({"models": [long, {"name": "b", "size": 12_345_678}]}))
    assert {line.index(cell) for line, cell in zip(lines, ("ID", "f" * 12), strict=False)} == {42}
    assert lines[1].endswith("999 B    2 weeks ago")
    assert lines[2].split() == ["b", "-", "12", "MB"]


def test_what_writes_down_speech_is_listed_after_the_others() -> None:
    speech = {"id": "ear", "created": 5, "size": 7, "capabilities": ["transcription"]}
    every = {"data": [{"id": "m", "capabilities": ["chat"]}, {"id": "of another server"}, speech]}
    told = tables.with_speech({"models": [{"name": "m:latest"}]}, every)
    assert [one["name"] for one in told["models"]] == ["m:latest", "ear"]
    assert told["models"][1]["capabilities"] == ["transcription"]
    row = re.split(r"\s{2,}", list(tables.models(told))[2])
    assert (row[:3], row[3].endswith(" years ago")) == (["ear", "-", "7 B"], True)


def test_what_writes_down_speech_runs_too() -> None:
    for expires, until in ((moment(minutes=5, seconds=1), "5 minutes from now"), (None, "Forever")):
        status = {"memory_usage": 3 * 10**8, "expires_at": expires}
        told = tables.with_running({"models": []}, {"id": "ear", "size": 7}, status)
        rows = [re.split(r"\s{2,}", line) for line in tables.running(told)]
        assert rows[1:] == [["ear", "-", "300 MB", "-", "-", until]]


def test_what_is_known_of_a_speech_model_is_shown() -> None:
    info = {"id": "ear", "format": "CTranslate2", "size": 7 * 10**6, "license": None, "capabilities": ["transcription"]}
    lines = list(tables.described(info))
    assert lines[:2] == ["  Model", "    id        ear"]
    assert lines[3:] == ["    size      7.0 MB", "", "  Capabilities", "    transcription"]


def test_models_are_chosen_by_how_their_names_begin() -> None:
    answer = {"models": [{"name": "Qwen:latest"}, {"name": "gemma:latest"}], "other": 1}
    assert tables.beginning(answer, "qw") == {"models": [{"name": "Qwen:latest"}], "other": 1}
    assert tables.beginning(answer, "") == answer


def test_all_parts_of_a_model_are_shown() -> None:
    answer = {
        "details": {"family": "llama", "parameter_size": "8B", "context_length": 8192, "quantization_level": "Q4_K_M"},
        "model_info": {},
        "capabilities": ["completion"],
        "parameters": 'stop                           "<|end|>"\ntemperature                    0.5',
        "system": "Be brief.\nBe kind.",
        "license": "\nMIT License\n\nCopyright\nand more",
    }
    assert (
        "\n".join(tables.shown(answer))
        == """\
  Model
    architecture      llama
    parameters        8B
    context length    8192
    quantization      Q4_K_M

  Capabilities
    completion

  Parameters
    stop           "<|end|>"
    temperature    0.5

  System
    Be brief.
    Be kind.

  License
    MIT License
    Copyright"""
    )
