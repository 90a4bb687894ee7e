from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.toolbox.results import output_of


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def test_what_fits_is_written_as_it_is() -> None:
    content = [text('größe "1"\n'), {"type": "image", "data": "aGk=", "mimeType": "image/png"}]
    output = output_of(content, {"x": 1}, 1000)
    assert output == '[{"type":"text","text":"größe \\"1\\"\\n"},{"type":"image","data":"aGk=","mimeType":"image/png"}]'
    assert json.loads(output) == content


def test_structured_content_stands_in_for_none() -> None:
    assert json.loads(output_of([], {"x": [1]}, 1000)) == [text('{"x":[1]}')]
    assert output_of([], None, 1000) == "[]"


def test_what_json_cannot_hold() -> None:
    for content, structured in (([{"type": "text", "text": "", "x": float("nan")}], None), ([], {"x": float("inf")})):
        with pytest.raises(ValueError, match="JSON"):
            output_of(content, structured, 1000)


def test_a_long_text_is_cut_and_the_cut_is_told() -> None:
    content = [text("short"), text("x" * 5000), text("after")]
    output = output_of(content, None, 2000)
    first, second, note = json.loads(output)
    assert first == text("short")
    assert second["text"] == "x" * len(second["text"])
    assert note[
        "text"
    ] == f"[The result had {len(json.dumps(content, separators=(',', ':')))} bytes and was cut here: " + (
        "at most 2000 are read.]"
    )
    assert 1700 < len(output) <= 2000


def test_what_is_no_text_is_left_out_whole() -> None:
    image = {"type": "image", "data": "x" * 5000, "mimeType": "image/png"}
    assert [block["type"] for block in json.loads(output_of([text("a"), image, text("b")], None, 2000))] == ["text"] * 2


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=2000), max_size=5), st.integers(1024, 4096))
def test_no_output_is_longer_than_it_may_be(texts: list[str], most: int) -> None:
    content = [text(one * 3) for one in texts]
    output = output_of(content, None, most)
    assert len(output.encode()) <= most
    kept = json.loads(output)
    if kept != content:
        assert "cut here" in kept.pop()["text"]
        assert all(one["text"].startswith(two["text"]) for one, two in zip(content, kept, strict=False))
