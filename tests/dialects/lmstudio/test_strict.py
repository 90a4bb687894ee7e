"""Strict bodies, refused in the words of the real server."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from llamarunner.dialects.lmstudio.errors import NATIVE
from llamarunner.dialects.lmstudio.strict import validated
from llamarunner.errors import InvalidRequest


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["a", "b"] = "a"


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    count: int = 1
    inner: list[Inner] = []


def refused(document: Any) -> Any:
    with pytest.raises(InvalidRequest) as caught:
        validated(Example, json.dumps(document).encode())
    return json.loads(NATIVE.error_body(caught.value, "r1"))["error"]


def test_what_fits_is_read() -> None:
    assert validated(Example, b'{"model":"m","count":2}') == Example(model="m", count=2)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            {"model": "m", "ttl": 3},
            {"message": "Unrecognized key(s) in object: 'ttl'", "code": "unrecognized_keys"},
            id="one key",
        ),
        pytest.param(
            {"ttl": 3, "seed": 1, "count": "x"},
            {"message": "Unrecognized key(s) in object: 'ttl', 'seed'", "code": "unrecognized_keys"},
            id="two keys, and more",
        ),
        pytest.param(
            {"model": "m", "inner": [{"x": 1}]},
            {"message": "Unrecognized key(s) in object: 'x'", "code": "unrecognized_keys"},
            id="deeper",
        ),
        pytest.param(
            {"count": 2},
            {"message": '"model" is required', "param": "model", "code": "missing_required_parameter"},
            id="missing",
        ),
        pytest.param(
            {"model": 7},
            {"message": "'model' is wrong: input should be a valid string.", "param": "model", "code": "invalid_type"},
            id="type",
        ),
        pytest.param(
            {"model": "m", "inner": [{"kind": "c"}]},
            {
                "message": "'inner[0].kind' is wrong: input should be 'a' or 'b'.",
                "param": "inner[0].kind",
                "code": "invalid_value",
            },
            id="value",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_its_words(document: Any, expected: dict[str, str]) -> None:
    assert refused(document) == {"type": "invalid_request", **expected}
