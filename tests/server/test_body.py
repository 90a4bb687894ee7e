"""Bodies of our own API, which pydantic judges."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llamarunner.errors import InvalidRequest
from llamarunner.server.body import MAX_SHOWN_PARAM, MOST_ITEMS, check_bounds, validated
from llamarunner.server.webhooks_api import RegisterBody

SOUND = {"url": "http://a.example/", "events": ["model.*"]}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({f"f{number}": 0 for number in range(190_000)}, None),
        ({**SOUND, "events": [0] * 190_000}, "events"),
        ({**SOUND, "x" * 500: [0] * 190_000}, "x" * MAX_SHOWN_PARAM),
    ],
)
def test_many_faults_take_no_longer_than_one(document: dict[str, Any], param: str | None) -> None:
    raw = json.dumps(document).encode()
    began = time.thread_time()
    with pytest.raises(InvalidRequest) as caught:
        validated(RegisterBody, raw)
    assert caught.value.param == param
    assert time.thread_time() < began + 0.5, "parsing it takes a tenth of a second"


def test_so_many_values_are_fine() -> None:
    check_bounds({"list": [0] * MOST_ITEMS, **{str(number): 0 for number in range(MOST_ITEMS - 1)}})
    assert validated(RegisterBody, json.dumps(SOUND).encode()).url == SOUND["url"]
