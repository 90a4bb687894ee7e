"""Models and instances as LM Studio's SDKs expect them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamarunner.dialects.lmstudio.described import Model, Quantization
from llamarunner.dialects.lmstudio.sdk_infos import Query, Running, fits, instance_info, model_info, seconds
from llamarunner.errors import InvalidRequest

MODEL = Model(
    key="Qwen/Q3",
    publisher="qwen",
    display_name="Q 3",
    kind="vlm",
    architecture="qwen3",
    quantization=Quantization("Q4_K_M", 4),
    params="4B",
    size_bytes=9,
    max_context_length=4096,
    tool_use=True,
    reasoning=False,
    description="not told",
)
RUNNING = Running("mine", "r1", 512, ttl=1.5, used_at=12.3456)


def test_what_is_known_is_told() -> None:
    info = model_info(MODEL, "q/w.gguf")
    assert info == {
        "type": "llm",
        "modelKey": "Qwen/Q3",
        "format": "gguf",
        "displayName": "Q 3",
        "publisher": "qwen",
        "path": "q/w.gguf",
        "sizeBytes": 9,
        "indexedModelIdentifier": "Qwen/Q3",
        "deviceIdentifier": None,
        "paramsString": "4B",
        "architecture": "qwen3",
        "quantization": {"name": "Q4_K_M", "bits": 4},
        "maxContextLength": 4096,
        "vision": True,
        "trainedForToolUse": True,
    }
    told = instance_info(MODEL, "q/w.gguf", RUNNING)
    assert {key: value for key, value in told.items() if key not in info} == {
        "identifier": "mine",
        "instanceReference": "r1",
        "ttlMs": 1500,
        "lastUsedTime": 12346,
        "contextLength": 512,
    }


def test_what_is_not_known_is_left_out_but_for_what_clients_want_in_any_case() -> None:
    bare = replace(MODEL, kind="embedding", architecture=None, quantization=Quantization("odd", None), params=None)
    told = instance_info(bare, "p", replace(RUNNING, ttl=None, used_at=None))
    assert {key for key, value in told.items() if value is None} == {"deviceIdentifier", "ttlMs", "lastUsedTime"}
    assert not told.keys() & {"architecture", "quantization", "paramsString", "vision", "trainedForToolUse"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"identifier": "mine"}, True),
        ({"identifier": "Mine"}, False),
        ({"path": "qwen/q3"}, True),
        ({"path": "mine"}, False),
        ({"domain": "llm", "vision": True}, True),
        ({"domain": "embedding"}, False),
        ({"vision": False}, False),
    ],
)
def test_queries(query: dict[str, object], expected: bool) -> None:
    assert fits(Query.model_validate(query), MODEL, RUNNING) is expected


def test_times_to_live_are_milliseconds() -> None:
    assert (seconds(None, "ttlMs"), seconds(1500, "ttlMs")) == (None, 1.5)
    with pytest.raises(InvalidRequest, match="ttlMs"):
        seconds(0.5, "ttlMs")
