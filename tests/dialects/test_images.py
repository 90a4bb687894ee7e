"""Where chats have images, and which of them are none of ours to pass on."""

from __future__ import annotations

import base64
import copy
import json
import time
from typing import Any

import pytest

from llamarunner.dialects.images import remote_images
from llamarunner.errors import InvalidRequest

HTTP = "https://a.example/cat.png"
DATA = "data:image/png;base64,AAAA"


def chat(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": list(parts)}]}


TEXT = {"type": "text", "text": HTTP}
PLACES = [
    (chat(TEXT, {"type": "image_url", "image_url": {"url": HTTP}}), "messages[1].content[1].image_url"),
    (chat({"type": "image_url", "image_url": HTTP}), "messages[1].content[0].image_url"),
    (chat(TEXT, {"type": "image", "source": {"type": "url", "url": HTTP}}), "messages[1].content[1].source"),
    (
        chat({"type": "tool_result", "content": [TEXT, {"type": "image", "source": {"type": "url", "url": HTTP}}]}),
        "messages[1].content[0].content[1].source",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": HTTP}]}]},
        "input[0].content[0].image_url",
    ),
    (
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": HTTP}]}]},
        "input[0].output[0].image_url",
    ),
]


@pytest.mark.parametrize(("document", "param"), PLACES)
def test_remote_images_are_found_and_replaced(document: dict[str, Any], param: str) -> None:
    document = copy.deepcopy(document)
    found = remote_images(document)
    assert [(one.url, one.param) for one in found] == [(HTTP, param)]
    found[0].inline("image/png", b"pixels")
    assert remote_images(document) == []
    text = base64.b64encode(b"pixels").decode()
    assert text in json.dumps(document)
    assert json.dumps(document).count(HTTP) == json.dumps(document).count('"text"') // 2


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "FILE:///x", "/etc/passwd", "", "ftp://a/", "httpx://a", "http:a"]
)
@pytest.mark.parametrize(("document", "param"), PLACES)
def test_s18_anything_but_data_and_http_is_refused(document: dict[str, Any], param: str, url: str) -> None:
    changed = json.loads(json.dumps(document).replace(HTTP, url))
    with pytest.raises(InvalidRequest, match="data URL") as caught:
        remote_images(changed)
    assert caught.value.param == param


@pytest.mark.parametrize("kind", ["audio_url", "video_url", "file_url", "input_audio", "input_video"])
def test_other_media_are_never_fetched(kind: str) -> None:
    assert remote_images(chat({"type": kind, kind: {"url": DATA}})) == []
    with pytest.raises(InvalidRequest):
        remote_images(chat({"type": kind, kind: {"url": HTTP}}))


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "input_video"])
@pytest.mark.parametrize("data", [HTTP, "http://127.0.0.1:1234/", "file:///etc/passwd", "HTTPS://a/", "httpAAAA"])
def test_s18_urls_where_base64_belongs_are_refused(kind: str, data: str) -> None:
    """The model's process follows them: seen with input_video of llama.cpp."""
    for link in ({"data": data, "format": "wav"}, {"url": DATA, "data": data}):
        with pytest.raises(InvalidRequest) as caught:
            remote_images(chat({"type": kind, kind: link}))
        assert caught.value.param == f"messages[1].content[0].{kind}"
    for fine in ("UklGRiQAAABXQVZF", "data:audio/wav;base64,AAAA", ""):
        assert remote_images(chat({"type": kind, kind: {"data": fine, "format": "wav"}})) == []


@pytest.mark.parametrize(("document", "param"), PLACES)
def test_data_passes(document: dict[str, Any], param: str) -> None:
    for data in (DATA, "DATA:image/png;base64,AAAA"):
        assert remote_images(json.loads(json.dumps(document).replace(HTTP, data))) == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"messages": None},
        {"messages": "x", "input": "https://a.example/"},
        {"messages": [None, 1, "x", {"content": None}, {"content": {"image_url": HTTP}}, {"content": [None, 1, HTTP]}]},
        chat(
            {"type": "image_url"}, {"image_url": None}, {"image_url": {"url": 1}}, {"image_url": {}}, {"source": HTTP}
        ),
        chat({"source": {"type": "base64", "data": "AAAA"}}, {"source": {"url": None}}),
        {"input": ["https://a.example/", {"content": "https://a.example/"}]},
    ],
)
def test_what_has_none_is_left_alone(document: dict[str, Any]) -> None:
    before = json.dumps(document)
    assert remote_images(document) == []
    assert json.dumps(document) == before


def test_a_chat_without_images_costs_nothing() -> None:
    document = {"messages": [{"role": "user", "content": "hello " * 1000} for _ in range(100)]}
    began = time.perf_counter()
    for _ in range(100):
        remote_images(document)
    assert (time.perf_counter() - began) / 100 < 0.001
