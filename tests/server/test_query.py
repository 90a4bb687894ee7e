"""Switches and numbers behind the question mark."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from llamarunner.errors import InvalidRequest
from llamarunner.server import query


def test_a_switch_is_off_unless_it_is_there() -> None:
    read = {text: query.flag(make_mocked_request("GET", f"/{text}"), "x") for text in ("", "?x", "?x=True", "?x=1")}
    assert read == {"": False, "?x": True, "?x=True": True, "?x=1": True}
    assert not any(query.flag(make_mocked_request("GET", f"/?x={text}"), "x") for text in ("0", "false", "False"))


@pytest.mark.parametrize(("text", "wanted"), [("", 7), ("?n=0", 0), ("?n=10", 10), ("?n=010", 10)])
def test_a_number_has_a_default_and_bounds(text: str, wanted: int) -> None:
    assert query.count(make_mocked_request("GET", f"/{text}"), "n", 7, 10) == wanted


@pytest.mark.parametrize("value", ["11", "-1", "x", "", "1.0", "9999999999", "1_0", "%D9%A3"])
def test_what_is_no_such_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        query.count(make_mocked_request("GET", f"/?n={value}"), "n", 7, 10)
    assert caught.value.param == "n"
