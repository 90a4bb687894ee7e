"""Images in chats, wherever a dialect has them: only data reaches a model's process, which would follow URLs itself.

{"type": "image_url", "image_url": {"url": …}}           OpenAI's chat
{"type": "input_image", "image_url": …}                  OpenAI's Responses
{"type": "image", "source": {"type": "url", "url": …}}   Anthropic, also inside of tool results

llama.cpp takes sound and video in the same way, under `data` as under `url`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamarunner.errors import InvalidRequest

LINKS = ("image_url", "audio_url", "video_url", "file_url", "input_audio", "input_video")
INNER = ("content", "output")  # what holds parts


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image that a document names by http or https."""

    url: str
    param: str  # where it stands
    _holder: dict[str, Any]
    _key: str

    def inline(self, media_type: str, data: bytes) -> None:
        """Put the image itself where its URL was, in the document."""
        text = base64.b64encode(data).decode()
        if self._key == "source":
            self._holder["source"] = {"type": "base64", "media_type": media_type, "data": text}
        else:
            self._holder[self._key] = f"data:{media_type};base64,{text}"


def remote_images(document: Mapping[str, object]) -> list[RemoteImage]:
    """Find the images that are not in the document itself.

    Raises InvalidRequest, naming the field, for what is neither data nor to be fetched by http or https.
    """
    found: list[RemoteImage] = []
    for field in ("messages", "input"):
        items = document.get(field)
        if isinstance(items, list):
            for part, path in _parts(items, field):
                found += _links(part, path)
    return found


def _parts(items: list[Any], path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Walk messages and the parts inside of them; the parser has bounded the depth."""
    for number, item in enumerate(items):
        if isinstance(item, dict):
            here = f"{path}[{number}]"
            yield item, here
            for key in INNER:
                inner = item.get(key)
                if isinstance(inner, list):
                    yield from _parts(inner, f"{here}.{key}")


def _links(part: dict[str, Any], path: str) -> Iterator[RemoteImage]:
    for key in LINKS:
        link = part.get(key)
        if isinstance(link, dict):
            if isinstance(link.get("url"), str):
                yield from _judged(RemoteImage(link["url"], f"{path}.{key}", link, "url"), key)
            if _misleads(link.get("data")):
                raise _not_data(f"{path}.{key}")
        elif isinstance(link, str):
            yield from _judged(RemoteImage(link, f"{path}.{key}", part, key), key)
    source = part.get("source")
    if isinstance(source, dict) and isinstance(source.get("url"), str):
        yield from _judged(RemoteImage(source["url"], f"{path}.source", part, "source"), "source")


def _judged(image: RemoteImage, key: str) -> Iterator[RemoteImage]:
    scheme = image.url[:8].casefold()
    if scheme.startswith("data:"):
        return
    if not scheme.startswith(("http://", "https://")) or key not in ("image_url", "source"):
        raise _not_data(image.param)
    yield image


def _misleads(data: object) -> bool:
    """Tell whether what should be base64 is a URL to llama.cpp, which looks at its first letters alone."""
    if not isinstance(data, str) or data[:5].casefold() == "data:":
        return False
    return ":" in data[:16] or data[:4].casefold() == "http"


def _not_data(param: str) -> InvalidRequest:
    return InvalidRequest(f"'{param}' must be a data URL, such as data:image/png;base64,….", param=param)
