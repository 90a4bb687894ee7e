"""All that a header holds."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.config import bundled
from llamarunner.gguf import GGUFError, contents
from tests.programs.write_gguf import write_model

DEMO = (bundled("models") / "demo-chat.gguf").read_bytes()


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    metadata = {
        "a.short": [1, 2, 3],
        "a.long": [float(number) for number in range(6)],
        "a.words": ["x", "é"],
        "a.vocabulary": list("abcdef"),
        "a.bad": math.inf,
        "a.flag": True,
    }
    tensors = {"first": np.zeros((2, 32), dtype=np.float32), "second": np.zeros(32, dtype=np.float16)}
    return write_model(tmp_path / "a.gguf", metadata, tensors=tensors).read_bytes()


def test_what_is_always_told(model: bytes) -> None:
    told = contents(model, everything=False)
    assert told.metadata["general.architecture"] == "llama"
    assert (told.metadata["a.short"], told.metadata["a.long"]) == ([1, 2, 3], [])
    assert (told.metadata["a.words"], told.metadata["a.vocabulary"]) == (["x", "é"], [])
    assert (told.metadata["a.bad"], told.metadata["a.flag"]) == (None, True)
    assert [(one.name, one.kind, one.shape) for one in told.tensors] == [
        ("first", "F32", (32, 2)),
        ("second", "F16", (32,)),
    ]


def test_everything(model: bytes) -> None:
    told = contents(model, everything=True)
    assert told.metadata["a.long"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert told.metadata["a.vocabulary"] == list("abcdef")
    assert contents(DEMO, True).metadata.keys() == contents(DEMO, False).metadata.keys()


@given(st.integers(0, 4000), st.binary(max_size=8), st.booleans())
def test_damage_is_an_error_and_nothing_else(at: int, bytes_: bytes, everything: bool) -> None:
    damaged = DEMO[:at] + bytes_ + DEMO[at + len(bytes_) : 20_000]
    with contextlib.suppress(GGUFError):
        contents(damaged, everything)
